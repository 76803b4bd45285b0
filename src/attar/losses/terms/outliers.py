"""Hidden states compared with the teacher's outlier dimensions in mind (`losses/eofd`).

The weights of a step are the same in all its micro-batches: the term looks at the teacher on the
whole batch first. Running spreads are buffers of the term, saved and resumed with the run. A step
that is not done, because its loss was no number, is taken out of them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from attar.losses.config import Eofd
from attar.losses.eofd import Spread, effective_dimensions, outlier_weights
from attar.losses.hidden import squared_distance
from attar.losses.shapes import Pair
from attar.losses.targets import Outputs, Targets
from attar.losses.terms.states import MappedStates
from attar.losses.terms.term import Needs, Share, Term


class RunningSpread(nn.Module):
    """The spread over all batches so far; a batch can be taken back."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        # Tokens are counted in integers: float32 counts to 16 million.
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("squares", torch.zeros(hidden_size))
        self._before: Spread | None = None

    @property
    def spread(self) -> Spread:
        return Spread(*(self.get_buffer(name) for name in ("count", "mean", "squares")))

    def add(self, batch: Spread) -> None:
        self._before = Spread(*(tensor.clone() for tensor in _tensors(self.spread)))
        merged = self.spread.merged(batch)
        # What is no number shows in the loss of this step; in the buffers it would stay for ever.
        if bool(merged.squares.isfinite().all()):
            self._fill(merged)

    def take_back(self) -> None:
        if self._before is not None:
            self._fill(self._before)

    def _fill(self, spread: Spread) -> None:
        for own, new in zip(_tensors(self.spread), _tensors(spread), strict=True):
            own.copy_(new)


class EofdTerm(Term):
    """Squared error of mapped hidden states, weighted by the spread of the teacher's."""

    needs = Needs(hidden=True, whole_batch=True)

    def __init__(self, config: Eofd, objective: str, pair: Pair | None) -> None:
        super().__init__()
        assert pair is not None
        self.states = MappedStates(config.kind, config.layer_map, pair)
        self._power, self._counts_padding = config.power, config.count_padding
        self._taught = [
            (stack, index)
            for stack, layer_map in self.states.maps.items()
            for index in sorted(set(layer_map.values()))
        ]
        self.running = nn.ModuleDict()
        if config.std == "running":
            for stack, index in self._taught:
                width = pair.teacher[stack].hidden_size
                self.running[_name(stack, index)] = RunningSpread(width)
        self._weights: dict[tuple[str, int], Tensor] = {}
        self._facts: dict[str, float] = {}
        self._real_ratio = dict.fromkeys(self.states.maps, 1.0)
        """Stack → real tokens / counted positions of the batch."""

    def look_at(self, teacher: Sequence[Outputs], targets: Sequence[Targets]) -> None:
        for stack, index in self._taught:
            pieces = [
                outputs.hidden[stack][index].detach()[self._counted(known, stack).bool()]
                for outputs, known in zip(teacher, targets, strict=True)
            ]
            spread = Spread.of_all(pieces)
            if self.running:
                running = self._running(stack, index)
                running.add(spread)
                spread = running.spread
            self._weights[stack, index] = outlier_weights(spread.std, self._power)
        if self._counts_padding:
            for stack in self.states.maps:
                masks = [known.masks[stack] for known in targets]
                real = max(sum(int(mask.sum()) for mask in masks), 1)
                self._real_ratio[stack] = real / sum(mask.numel() for mask in masks)
        self._facts = self._effective_dimensions()

    def forget(self) -> None:
        for stack, index in self._taught if self.running else ():
            self._running(stack, index).take_back()

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        assert teacher is not None
        assert self._weights, "look_at has not seen this batch"
        shares: list[Share] = []
        for stack, index, own, taught in self.states.pairs(student, teacher):
            weights = self._weights[stack, index]
            sums = squared_distance(own, taught, self._counted(targets, stack), weights)
            # The caller divides by the real tokens of the batch.
            sums = sums * (self._real_ratio[stack] / self.states.num_pairs)
            shares.append(Share(stack, sums))
        return shares

    def facts(self) -> Mapping[str, float]:
        """Effective number of dimensions: mean over the layers of each stack, and of its last."""
        return self._facts

    def _effective_dimensions(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for stack in self.states.maps:
            sizes = [
                effective_dimensions(self._weights[of, index])
                for of, index in self._taught
                if of == stack
            ]
            found[f"{stack}.effective_dimensions"] = fmean(sizes)
            found[f"{stack}.effective_dimensions_last"] = sizes[-1]
        return found

    def _counted(self, targets: Targets, stack: str) -> Tensor:
        mask = targets.masks[stack]
        return torch.ones_like(mask) if self._counts_padding else mask

    def _running(self, stack: str, index: int) -> RunningSpread:
        running = self.running[_name(stack, index)]
        assert isinstance(running, RunningSpread)
        return running


def _tensors(spread: Spread) -> tuple[Tensor, Tensor, Tensor]:
    return spread.count, spread.mean, spread.squares


def _name(stack: str, index: int) -> str:
    return f"{stack}_{index}"
