"""Losses on hidden states: stack by stack, mapped pair by mapped pair.

For a mapped pair, the mean over the hidden dimensions of the squared difference, summed over the
real tokens of an example; padding is excluded:

    sum_B = Σ_T mask_BT · mean_D( w_D · (H^s_BTD − H^t_BTD)² )

Weights w are 1 in the plain mean squared error. The cosine distance compares directions only. A
term's value is the mean over all its pairs, of all stacks, of the mean over that stack's real
tokens. Where student and teacher differ in width, a learned projection maps the student's states;
one for each stack, shared by all its pairs.
Shapes: B examples, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from attar.errors import ModelError
from attar.losses.targets import Outputs, Targets
from attar.losses.term import Needs, Pair, Share, Term

LayerMap = Mapping[int, int]
"""Student state → teacher state; 0 is the embedding output, k the output of block k."""


def resolve_layer_map(
    asked: str | LayerMap,
    student_blocks: int,
    teacher_blocks: int,
    kind: str,
    *,
    of_attentions: bool = False,
) -> LayerMap:
    """Resolve a layer_map setting to pairs. `uniform`: i → i·L_teacher/L_student, starting with the
    embeddings; `last`: only the last pair.

    Args:
        kind: of the loss, for the message.
        of_attentions: map attentions instead of hidden states; 0 is the first block's, because
            embeddings have no attention. The attention of block i belongs to hidden state i + 1.
    Raises:
        ModelError: the depths do not divide (uniform), or a pair does not exist.

    Example:
        >>> resolve_layer_map("uniform", 3, 6, "hidden_mse")
        {0: 0, 1: 2, 2: 4, 3: 6}
        >>> resolve_layer_map("uniform", 3, 6, "attention_mse", of_attentions=True)
        {0: 1, 1: 3, 2: 5}
    """
    last, teacher_last = student_blocks - of_attentions, teacher_blocks - of_attentions
    if isinstance(asked, Mapping):
        outside = (
            f"{s} → {t}"
            for s, t in asked.items()
            if not (0 <= s <= last and 0 <= t <= teacher_last)
        )
        wrong = ", ".join(outside)
        if wrong or not asked:
            what = "attentions" if of_attentions else "hidden states (0: embedding output)"
            raise ModelError(
                f"{kind}: layer_map has {wrong or 'no pairs'}; the student's {what} are "
                f"0..{last}, the teacher's 0..{teacher_last}"
            )
        return asked
    if asked == "last":
        return {last: teacher_last}
    stride, rest = divmod(teacher_blocks, student_blocks)
    if rest:
        first = "" if of_attentions else "0 = 0, "
        raise ModelError(
            f'{kind}: layer_map "uniform" needs the teacher\'s depth to be a multiple of the '
            f"student's, got {teacher_blocks} and {student_blocks} blocks; write pairs, such as "
            f"layer_map = {{ {first}{last} = {teacher_last} }}"
        )
    states = range(int(of_attentions), student_blocks + 1)
    return {i - of_attentions: i * stride - of_attentions for i in states}


def squared_distance(
    student: Float[Tensor, "B T D"],
    teacher: Float[Tensor, "B T D"],
    mask: Int[Tensor, "B T"],
    weights: Float[Tensor, " D"] | None = None,
) -> Float[Tensor, " B"]:
    """Squared difference of two hidden states, mean over dimensions, summed over each example's
    real tokens.

    Law: 0 at equality, never negative, and independent of padding. Gradient reaches only the
    student.

    Args:
        weights: of each dimension; None: 1.
    Source: Jiao et al., "TinyBERT" (2020), equation 8, with padding excluded.
    """
    # Padding may contain anything, including infinity: remove it before squaring, because
    # multiplying infinity by 0 gives NaN.
    squares = torch.where(mask.bool().unsqueeze(-1), student - teacher.detach(), 0).square()
    weighted = squares if weights is None else squares * weights
    return weighted.mean(dim=-1).sum(dim=-1)


def cosine_distance(
    student: Float[Tensor, "B T D"],
    teacher: Float[Tensor, "B T D"],
    mask: Int[Tensor, "B T"],
) -> Float[Tensor, " B"]:
    """1 − cosine of two hidden states, summed over each example's real tokens.

    Computed as half the squared distance of the two directions, which is equal but has no
    cancellation error for similar vectors.

    Law: 0 if one is a positive multiple of the other, never negative, at most 2 per token, and
    independent of vector lengths and padding. Gradient reaches only the student.
    Source: Sanh et al., "DistilBERT" (2019), section 3.
    """
    real = mask.bool()
    own, taught = (functional.normalize(h[real], dim=-1) for h in (student, teacher.detach()))
    distances = (own - taught).square().sum(dim=-1) / 2
    sums = torch.zeros(len(mask), dtype=distances.dtype, device=distances.device)
    return sums.index_add(0, torch.nonzero(real)[:, 0], distances)


class MappedStates(nn.Module):
    """Pairs of hidden states of student and teacher, projected to the same width."""

    def __init__(self, kind: str, layer_map: str | LayerMap, pair: Pair) -> None:
        super().__init__()
        self.maps = {
            stack: resolve_layer_map(
                layer_map, pair.student[stack].num_blocks, pair.teacher[stack].num_blocks, kind
            )
            for stack in pair.stacks(kind)
        }
        self.projections = nn.ModuleDict()
        for stack in self.maps:
            own, other = pair.student[stack].hidden_size, pair.teacher[stack].hidden_size
            if own != other:
                self.projections[stack] = _projection(own, other, pair.seed)

    @property
    def num_pairs(self) -> int:
        return sum(map(len, self.maps.values()))

    def pairs(
        self, student: Outputs, teacher: Outputs
    ) -> Iterator[tuple[str, int, Tensor, Tensor]]:
        """Stack, index of the teacher's state, and both states (B, T, D); the teacher's without
        gradient.
        """
        for stack, layer_map in self.maps.items():
            for own, other in layer_map.items():
                state = student.hidden[stack][own]
                if stack in self.projections:
                    state = self.projections[stack](state)
                yield stack, other, state, teacher.hidden[stack][other].detach()


class StatesTerm(Term):
    """Mean squared error of mapped hidden states."""

    needs = Needs(hidden=True)

    def __init__(self, config: Any, objective: str, pair: Pair | None) -> None:
        super().__init__()
        assert pair is not None
        # embedding_mse has no layer_map: it compares the embedding outputs
        self.states = MappedStates(config.kind, getattr(config, "layer_map", {0: 0}), pair)

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        assert teacher is not None
        return [
            Share(stack, self.of_pair(stack, index, own, taught, targets))
            for stack, index, own, taught in self.states.pairs(student, teacher)
        ]

    def of_pair(
        self, stack: str, index: int, own: Tensor, taught: Tensor, targets: Targets
    ) -> Tensor:
        """Contribution of one pair, (B,): its distance, summed over real tokens, divided by the
        number of pairs.

        Args:
            index: of the teacher's state.
        """
        return squared_distance(own, taught, targets.masks[stack]) / self.states.num_pairs


class HiddenCosineTerm(StatesTerm):
    """1 − cosine of mapped hidden states."""

    def of_pair(
        self, stack: str, index: int, own: Tensor, taught: Tensor, targets: Targets
    ) -> Tensor:
        return cosine_distance(own, taught, targets.masks[stack]) / self.states.num_pairs


def _projection(own: int, other: int, seed: int) -> nn.Linear:
    """A linear map H ↦ H W, initialized with orthonormal rows or columns so that it preserves
    lengths and angles.
    """
    made = nn.Linear(own, other, bias=False)
    with torch.no_grad():
        random = torch.Generator().manual_seed(seed)
        nn.init.orthogonal_(made.weight, generator=random)
    return made
