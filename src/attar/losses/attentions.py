"""Losses on self-attention, compared in every stack that the models have.

attention_mse compares the scores of mapped blocks before the softmax, where small probabilities are
still distinguishable. A query's error is the mean over the keys it may attend to, so the loss is a
mean over real tokens, as for hidden states:

    sum_B = Σ_T mask_BT · mean_H mean_(S seen from T) (a^s_BHTS − a^t_BHTS)²

relation_kl needs neither equal widths nor equal head counts, and only one block of each model. It
compares distributions over the tokens of the text: an attention, or the softmax of the products of
any vectors x (queries, keys, values), split into R equal heads of size E / R:

    relation_TS = softmax_S( x_T · x_S / √(E/R) )
    sum_B       = Σ_T mask_BT · mean_R KL( teacher's relation_T ‖ student's relation_T )

In both, only pairs of real tokens count, and in a causal stack only keys at or before the query.

Shapes: B examples, T queries, S keys, H heads, R relation heads, E = heads · head size.
Source: Jiao et al., "TinyBERT" (2020), equation 7; Wang et al., "MiniLM" (2020): attentions and
value relations of the last block, and "MiniLMv2" (2021): query, key and value relations of a chosen
block of the teacher's.
*Differs from TinyBERT's code*: that sets scores at or below −100 to 0 and takes the mean over all
positions, padding included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attar.errors import ModelError
from attar.losses.config import AttentionMse, RelationKl
from attar.losses.predictions import divergence
from attar.losses.states import resolve_layer_map
from attar.losses.targets import Outputs, Targets
from attar.losses.term import Needs, Pair, Share, StackShape, Term


def seen_pairs(mask: Int[Tensor, "B T"], is_causal: bool) -> Bool[Tensor, "B T T"]:
    """Keys (last axis) that each query may attend to: no padding, and in a causal stack no later
    tokens.

    Example:
        >>> seen_pairs(torch.tensor([[1, 1, 0]]), is_causal=True).int().tolist()
        [[[1, 0, 0], [1, 1, 0], [0, 0, 0]]]
    """
    real = mask.bool()
    seen = real.unsqueeze(2) & real.unsqueeze(1)
    return seen.tril() if is_causal else seen


def score_distance(
    student: Float[Tensor, "B H T T"],
    teacher: Float[Tensor, "B H T T"],
    seen: Bool[Tensor, "B T T"],
) -> Float[Tensor, " B"]:
    """Squared difference of two attentions' scores, mean over heads and over the keys a query sees,
    summed over each example's queries.

    Law: 0 at equality, never negative, independent of masked positions. Gradient reaches only the
    student.
    """
    # Masked positions may contain anything, including infinity: remove them before squaring.
    squares = torch.where(seen.unsqueeze(1), student - teacher.detach(), 0).square()
    by_query = squares.mean(dim=1).sum(dim=-1) / seen.sum(dim=-1).clamp(min=1)
    return by_query.sum(dim=-1)


UNSEEN = -1e30
"""Score of a masked key: finite, because 0 · (∞ − ∞) is NaN; its probability is exactly 0."""


def relation_scores(vectors: Float[Tensor, "B T E"], heads: int) -> Float[Tensor, "B R T T"]:
    """Dot products of each token's vectors with those of all tokens, scaled, before the softmax.

    Args:
        heads: number of relation heads R; divides E.
    """
    batch, tokens, _ = vectors.shape
    cut = vectors.view(batch, tokens, heads, -1).transpose(1, 2)
    return cut @ cut.transpose(-1, -2) * cut.shape[-1] ** -0.5


def relation_divergence(
    student: Float[Tensor, "B R T T"],
    teacher: Float[Tensor, "B R T T"],
    seen: Bool[Tensor, "B T T"],
) -> Float[Tensor, " B"]:
    """KL(teacher‖student) of the softmax over the keys that each query sees, mean over the heads,
    summed over each example's real queries; in nats.

    Law: 0 if the scores differ by a constant, never negative, independent of masked positions.
    Gradient reaches only the student.

    Args:
        student, teacher: scores before the softmax.
    """
    log_q, log_p = (_log_softmax(scores, seen) for scores in (student, teacher.detach()))
    return divergence(log_p, log_q).mean(dim=1).sum(dim=-1)


def _log_softmax(scores: Tensor, seen: Tensor) -> Tensor:
    """log softmax over the keys that a query sees; uniform for a query that sees none (padding)."""
    return torch.where(seen.unsqueeze(1), scores, UNSEEN).log_softmax(dim=-1)


class AttentionMseTerm(Term):
    """Mean squared error of attention scores before the softmax."""

    needs = Needs(scores=True)

    def __init__(self, config: AttentionMse, objective: str, pair: Pair | None) -> None:
        super().__init__()
        assert pair is not None
        self._of_means = config.heads == "mean"
        stacks = {stack: (pair.student[stack], pair.teacher[stack]) for stack in pair.stacks(_ATT)}
        self._is_causal = {stack: own.is_causal for stack, (own, _) in stacks.items()}
        self._maps = {
            stack: resolve_layer_map(
                config.layer_map, own.num_blocks, other.num_blocks, _ATT, of_attentions=True
            )
            for stack, (own, other) in stacks.items()
        }
        for stack, (own, other) in stacks.items():
            if own.heads != other.heads and not self._of_means:
                raise ModelError(
                    f"{_ATT}: in the {stack} the student has {own.heads} heads, the teacher "
                    f'{other.heads}; set heads = "mean" to compare means over heads, or use '
                    "relation_kl with the relations query, key and value"
                )

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        assert teacher is not None
        num_pairs = sum(map(len, self._maps.values()))
        shares: list[Share] = []
        for stack, layer_map in self._maps.items():
            seen = seen_pairs(targets.masks[stack], self._is_causal[stack])
            for own, other in layer_map.items():
                sums = score_distance(
                    self._compared(student.scores[stack][own]),
                    self._compared(teacher.scores[stack][other]),
                    seen,
                )
                shares.append(Share(stack, sums / num_pairs))
        return shares

    def _compared(self, scores: Tensor) -> Tensor:
        return scores.mean(dim=1, keepdim=True) if self._of_means else scores


class RelationKlTerm(Term):
    """KL(teacher‖student) between token relations of the student's last block and a block of the
    teacher.
    """

    needs = Needs(scores=True, qkv=True)

    def __init__(self, config: RelationKl, objective: str, pair: Pair | None) -> None:
        super().__init__()
        assert pair is not None
        self._relations = config.relations
        self._is_causal: dict[str, bool] = {}
        self._teacher_block: dict[str, int] = {}
        self._heads: dict[tuple[str, str], int] = {}
        for stack in pair.stacks(_REL):
            own, other = pair.student[stack], pair.teacher[stack]
            self._is_causal[stack] = own.is_causal
            self._teacher_block[stack] = _teacher_block(config.teacher_block, other, stack)
            for relation in config.relations:
                self._heads[stack, relation] = _relation_heads(
                    relation, config.heads, own, other, stack
                )

    @classmethod
    def needs_for(cls, config: Any) -> Needs:
        asked = set(config.relations)
        return Needs(scores="attention" in asked, qkv=bool(asked - {"attention"}))

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        assert teacher is not None
        num = len(self._relations) * len(self._teacher_block)
        shares: list[Share] = []
        for stack, block in self._teacher_block.items():
            seen = seen_pairs(targets.masks[stack], self._is_causal[stack])
            both = zip(
                self._scores(student, stack, -1), self._scores(teacher, stack, block), strict=True
            )
            shares += [
                Share(stack, relation_divergence(own, taught, seen) / num) for own, taught in both
            ]
        return shares

    def _scores(self, outputs: Outputs, stack: str, block: int) -> Iterator[Tensor]:
        """Scores of each relation, (B, R, T, T)."""
        for relation in self._relations:
            if relation == "attention":
                yield outputs.scores[stack][block]
            else:
                vectors = outputs.qkv[stack][block][_PLACES[relation]]
                yield relation_scores(vectors, self._heads[stack, relation])


_ATT, _REL = "attention_mse", "relation_kl"
_PLACES = {"query": 0, "key": 1, "value": 2}


def _teacher_block(asked: int | None, teacher: StackShape, stack: str) -> int:
    last = teacher.num_blocks - 1
    if asked is not None and not 0 <= asked <= last:
        raise ModelError(
            f"{_REL}: teacher_block is {asked}; the blocks of the teacher's {stack} are 0..{last}"
        )
    return last if asked is None else asked


def _relation_heads(
    relation: str, asked: int | None, student: StackShape, teacher: StackShape, stack: str
) -> int:
    """Number of heads of a relation."""
    if relation == "attention":
        if student.heads != teacher.heads:
            raise ModelError(
                f'{_REL}: the relation "attention" is compared head by head; in the {stack} the '
                f"student has {student.heads} heads, the teacher {teacher.heads}; use relations = "
                '["query", "key", "value"] with heads = …'
            )
        return student.heads
    own, other = student.heads_of[relation], teacher.heads_of[relation]
    if asked is None:
        if own != other:
            raise ModelError(
                f"{_REL}: in the {stack} the student has {own} {relation} heads, the teacher "
                f"{other}; set heads to a number that divides {own * student.head_size} and "
                f"{other * teacher.head_size}"
            )
        return own
    widths = {"student": own * student.head_size, "teacher": other * teacher.head_size}
    wrong = [f"the {side}'s {width}" for side, width in widths.items() if width % asked]
    if wrong:
        raise ModelError(
            f"{_REL}: heads = {asked} does not divide the width of {relation} in the {stack}, "
            f"{' nor '.join(wrong)}"
        )
    return asked
