"""Terms on hidden states: stack by stack, mapped pair by mapped pair.

A term's value is the mean over all its pairs, of all stacks, of the mean over that stack's real
tokens. Where student and teacher differ in width, a learned projection maps the student's states;
one a stack, shared by all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attar.losses.config import EmbeddingMse, HiddenCosine, HiddenMse
from attar.losses.hidden import (
    LayerMap,
    cosine_distance,
    resolve_layer_map,
    squared_distance,
)
from attar.losses.shapes import Pair
from attar.losses.targets import Outputs, Targets
from attar.losses.terms.term import Needs, Share, Term


class MappedStates(nn.Module):
    """Pairs of hidden states of student and teacher, of one width."""

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
        """Stack, teacher's index, and both states (B, T, D); the teacher's without gradient."""
        for stack, layer_map in self.maps.items():
            for own, other in layer_map.items():
                state = student.hidden[stack][own]
                if stack in self.projections:
                    state = self.projections[stack](state)
                yield stack, other, state, teacher.hidden[stack][other].detach()


class StatesTerm(Term):
    """A distance between mapped hidden states."""

    needs = Needs(hidden=True)
    distance: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(student's state, teacher's state, mask) → (B,), a sum over real tokens."""

    def __init__(
        self, config: HiddenMse | HiddenCosine | EmbeddingMse, objective: str, pair: Pair | None
    ) -> None:
        super().__init__()
        assert pair is not None
        self.states = MappedStates(config.kind, self.layer_map(config), pair)

    def layer_map(self, config: Any) -> str | LayerMap:
        return config.layer_map

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        assert teacher is not None
        between = type(self).distance
        return [
            Share(stack, between(own, taught, targets.masks[stack]) / self.states.num_pairs)
            for stack, _, own, taught in self.states.pairs(student, teacher)
        ]


class HiddenMseTerm(StatesTerm):
    """Mean squared error of mapped hidden states."""

    distance = staticmethod(squared_distance)


class HiddenCosineTerm(StatesTerm):
    """1 − cosine of mapped hidden states."""

    distance = staticmethod(cosine_distance)


class EmbeddingMseTerm(StatesTerm):
    """Mean squared error of what the embeddings of each stack give to its first block."""

    distance = staticmethod(squared_distance)

    def layer_map(self, config: Any) -> str | LayerMap:
        return {0: 0}


def _projection(own: int, other: int, seed: int) -> nn.Linear:
    """H ↦ H W with orthonormal rows or columns: at first it keeps lengths and angles."""
    made = nn.Linear(own, other, bias=False)
    with torch.no_grad():
        random = torch.Generator().manual_seed(seed)
        nn.init.orthogonal_(made.weight, generator=random)
    return made
