"""Terms on self-attentions: the scores of mapped blocks, or the relations of one block.

Both are compared in every stack the models have; a term's value is the mean over all that it
compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from attar.errors import ModelError
from attar.losses.attention import resolve_attention_map, score_distance, seen_pairs
from attar.losses.config import AttentionMse, RelationKl
from attar.losses.relations import relation_divergence, relation_scores
from attar.losses.shapes import Pair, StackShape
from attar.losses.targets import Outputs, Targets
from attar.losses.terms.term import Needs, Share, Term


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
            stack: resolve_attention_map(config.layer_map, own.num_blocks, other.num_blocks, _ATT)
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
    """KL(teacher‖student) of how tokens relate, in the student's last block and one of the
    teacher's.
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
        """Of each relation, (B, R, T, T)."""
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
    """How many heads a relation has.

    Raises:
        ModelError: the models' own head counts differ, or the asked one does not divide a width.
    """
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
