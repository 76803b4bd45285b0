"""Outlier-focused weights: dimensions in which the teacher's hidden states vary most get the
largest weight.

The problem: a few hidden dimensions carry values far beyond the others, and disabling them hurts a
model far more than disabling the same number of others; a plain mean over dimensions lets a student
ignore them. The idea: each dimension is weighted by its standard deviation in the teacher, relative
to the mean standard deviation, raised to a power p:

    std_d = standard deviation of H^t_d over all tokens of the batch     w_d = (std_d / mean std)^p
    loss  = mean( w_d · (H^s W − H^t)_d² )

p = 0 is the plain hidden MSE. Micro-batches share the spread of their batch: means and sums of
squares are merged exactly. With "running", the spread is accumulated over batches and fluctuates
less from step to step. With δ the difference of two means:

    n = n_A + n_B                        mean = mean_A + δ · n_B / n
    squares = squares_A + squares_B + δ² · n_A · n_B / n

The weights are the same in all micro-batches of a step, because the term sees the teacher on the
whole batch first. Running spreads are buffers of the term, saved and resumed with the run; a
skipped step (non-finite loss) is removed from them.

Not included: weights per token, or weights from the student's outputs.
Source: the appendix "Code for the Emergent Outlier Focused Distillation Loss" of the EOFD paper
(NAACL 2025); Chan, Golub, LeVeque (1979) for the merging.
*Differs from the paper*: padding is excluded unless count_padding is set; running spreads.

Shapes: N tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import fmean

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attar.losses.config import Eofd
from attar.losses.states import StatesTerm, squared_distance
from attar.losses.targets import Outputs, Targets
from attar.losses.term import Needs, Pair


@dataclass(frozen=True)
class Spread:
    """Count, mean, and sum of squared distances from the mean, of each dimension."""

    count: Int[Tensor, ""]
    mean: Float[Tensor, " D"]
    squares: Float[Tensor, " D"]

    @staticmethod
    def of(states: Float[Tensor, "N D"]) -> Spread:
        """Spread of some tokens, possibly none. Computed in at least float32: summed in bf16, a
        standard deviation is off by up to 0.7 %."""
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        count = torch.tensor(len(states), device=states.device)
        mean = wide.sum(dim=0) / max(len(states), 1)
        return Spread(count, mean, (wide - mean).square().sum(dim=0))

    def merged(self, other: Spread) -> Spread:
        """Spread of the tokens of both.

        Law: for any cut and any order, merging the spreads of the pieces gives the spread of the
        whole, up to rounding.
        """
        count = self.count + other.count
        share = other.count.to(self.mean.dtype) / count.clamp(min=1)
        off = other.mean - self.mean
        squares = self.squares + other.squares + off.square() * (self.count * share)
        return Spread(count, self.mean + off * share, squares)

    @staticmethod
    def of_all(pieces: Iterable[Float[Tensor, "_ D"]]) -> Spread:
        """Spread of tokens that come in one or more pieces."""
        return reduce(Spread.merged, map(Spread.of, pieces))

    @property
    def std(self) -> Float[Tensor, " D"]:
        """Standard deviation as in torch: unbiased, divided by the count minus one. 0 for a single
        token.
        """
        return (self.squares / (self.count - 1).clamp(min=1)).sqrt()


def outlier_weights(std: Float[Tensor, " D"], power: float) -> Float[Tensor, " D"]:
    """(std / mean of std)^power.

    Law: power 0 gives ones; scaling all of std changes nothing. If nothing varies, as in a batch of
    one token, all weights are 1.

    Args:
        std: standard deviations of the teacher's states, not negative.
        power: 0 or more; 1: proportional to the standard deviation.

    Example:
        >>> outlier_weights(torch.tensor([1.0, 1.0, 4.0]), 0.5).tolist()
        [0.7071067690849304, 0.7071067690849304, 1.4142135381698608]
    """
    mean = std.mean()
    return torch.where(mean > 0, std / mean, 1.0).pow(power)


def effective_dimensions(weights: Float[Tensor, " D"]) -> float:
    """(Σ w)² / Σ w²: the effective number of dimensions that share the weight, 1..D; D if all
    weights are equal.

    Example:
        >>> effective_dimensions(torch.tensor([1.0, 1.0, 0.0, 0.0]))
        2.0
    """
    return float(weights.sum().square() / weights.square().sum())


class RunningSpread(nn.Module):
    """The spread over all batches so far; the last batch can be taken back."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        # Count tokens as integers: float32 is exact only up to 16 million.
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
        # A NaN shows up in the loss of this step; in the buffers it would never go away.
        if bool(merged.squares.isfinite().all()):
            self._fill(merged)

    def take_back(self) -> None:
        if self._before is not None:
            self._fill(self._before)

    def _fill(self, spread: Spread) -> None:
        for own, new in zip(_tensors(self.spread), _tensors(spread), strict=True):
            own.copy_(new)


class EofdTerm(StatesTerm):
    """Squared error of mapped hidden states, weighted by the spread of the teacher's."""

    needs = Needs(hidden=True, whole_batch=True)

    def __init__(self, config: Eofd, objective: str, pair: Pair | None) -> None:
        super().__init__(config, objective, pair)
        assert pair is not None
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
        """Stack → number of real tokens / number of counted positions in the batch."""

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

    def of_pair(
        self, stack: str, index: int, own: Tensor, taught: Tensor, targets: Targets
    ) -> Tensor:
        weights = self._weights[stack, index]  # of this batch, set by look_at
        sums = squared_distance(own, taught, self._counted(targets, stack), weights)
        # The caller divides by the number of real tokens in the batch.
        return sums * (self._real_ratio[stack] / self.states.num_pairs)

    def facts(self) -> Mapping[str, float]:
        """Effective number of dimensions: mean over the layers of each stack, and that of the last
        layer.
        """
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
