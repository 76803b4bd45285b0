"""Criteria for outlier dimensions, in the output of a norm or in a hidden state.

    gamma_3sigma            |γ_j − mean(γ)| > 3 · std(γ)                    (no text is read)
    gamma_and_bias_3sigma   the same of γ and of β, at one position          (no text is read)
    activation_std          s_j − mean(s) > 3 · std(s),   s_j = std over tokens of y_j
    activation_magnitude    |y_j| ≥ 6 in ≥ 6 % of the tokens, in ≥ 25 % of the stack's blocks

The *strength* of a dimension is, for the first three criteria, the left side divided by the
standard deviation, with threshold 3 (for γ and β, the smaller of the two); for the last, it is the
share of tokens, with threshold 6 %. One of D dimensions can deviate by at most √(D−1) standard
deviations, and k equal ones by about √(D/k), so in a model with ten or fewer dimensions, the first
three criteria never find an outlier.

Left out: criteria for single tokens and for tails (`massive`), which do not identify dimensions.
Source: γ as in the EOFD paper (NAACL 2025), appendix H; γ and β in Kovaleva et al. (2021);
magnitudes in Dettmers et al. (2022), section 3, who look at what each block reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.analysis.config import OutlierCriterion
from attar.analysis.outlying.hidden import PlacedNorm, hidden_states_of, norms_of
from attar.analysis.subject import Place, Subject
from attar.errors import ModelError
from attar.numerics.moments import Moments
from attar.quantization.calibration.calibrate import Watcher

BORDER = 3.0
"""Threshold in standard deviations."""


@dataclass(frozen=True)
class Verdict:
    """Result of a criterion at one place."""

    strength: Tensor
    """(D,): standard deviations, or a share of tokens."""
    dimensions: list[int]
    """The outlier dimensions, strongest first."""


@dataclass(frozen=True)
class Recogniser:
    """A criterion applied to one model."""

    verdicts: Callable[[], dict[Place, Verdict]]
    """Returns the verdict of every place, in the order of the forward pass."""
    watchers: Mapping[Place, Watcher] = field(default_factory=dict)
    """Watchers that must see the activations before `verdicts` is called."""


def recognise(
    config: OutlierCriterion, subject: Subject, also: Mapping[Place, Watcher] | None = None
) -> dict[Place, Verdict]:
    """Find the outlier dimensions of every place, by the criterion in the study's settings.

    Args:
        also: other watchers, for the same pass over the texts.
    Raises:
        ModelError: the criterion needs biases, and the norms have none.
        NonFiniteError: a hidden state contains NaN or infinity.
    """
    criterion = CRITERIA[config.criterion](config, subject.model)
    seers = together(criterion.watchers, also or {})
    if seers:
        subject.watch(seers, "spread of activations")
    return criterion.verdicts()


def together(*several: Mapping[Place, Watcher]) -> dict[Place, Watcher]:
    """Combine the watchers of each place."""
    found: dict[Place, list[Watcher]] = {}
    for seers in several:
        for place, see in seers.items():
            found.setdefault(place, []).append(see)

    def each(watchers: Sequence[Watcher]) -> Watcher:
        def see_all(values: Tensor) -> None:
            for see in watchers:
                see(values)

        return see_all

    return {place: each(watchers) for place, watchers in found.items()}


def _of_weights(config: OutlierCriterion, model: PreTrainedModel) -> Recogniser:
    """Criteria on γ, and on β for `gamma_and_bias_3sigma`."""
    norms = norms_of(model)
    with_bias = config.criterion == "gamma_and_bias_3sigma"
    bare = [norm.view.fqn for norm in norms if norm.beta is None]
    if with_bias and bare:
        raise ModelError(
            f"criterion gamma_and_bias_3sigma compares γ and β of every norm; {len(bare)} of "
            f"the {len(norms)} norms of model {config.model!r} have no bias, the first is "
            f'{bare[0]}; use criterion = "gamma_3sigma"'
        )

    def deviation(norm: PlacedNorm) -> Tensor:
        of_gamma = standardised(norm.gamma).abs()
        if not with_bias or norm.beta is None:
            return of_gamma
        return torch.minimum(of_gamma, standardised(norm.beta).abs())

    return Recogniser(lambda: {norm.site: by_deviation(deviation(norm)) for norm in norms})


@dataclass
class _Spread:
    moments: Moments = field(default_factory=Moments)

    def see(self, values: Tensor) -> None:
        self.moments = self.moments.merged(Moments.of(values))


def _of_spread(config: OutlierCriterion, model: PreTrainedModel) -> Recogniser:
    """Criterion `activation_std`."""
    spreads = {place: _Spread() for place in places_of(config, model)}
    return Recogniser(
        lambda: {p: by_deviation(standardised(s.moments.std)) for p, s in spreads.items()},
        {place: spread.see for place, spread in spreads.items()},
    )


class LargeValues:
    """Counts the tokens with a large value in each dimension, independent of chunking."""

    def __init__(self, magnitude: float) -> None:
        self.magnitude, self.tokens = magnitude, 0
        self.counts = torch.zeros((), dtype=torch.int64)

    def see(self, values: Tensor) -> None:
        """Count values (N, D)."""
        self.tokens += len(values)
        self.counts = self.counts + (values.abs() >= self.magnitude).sum(dim=0)

    @property
    def shares(self) -> Tensor:
        """(D,): of the tokens."""
        return self.counts.double() / max(self.tokens, 1)


def _of_magnitude(config: OutlierCriterion, model: PreTrainedModel) -> Recogniser:
    """Criterion `activation_magnitude`."""
    seen = {place: LargeValues(config.magnitude) for place in places_of(config, model)}

    def verdicts() -> dict[Place, Verdict]:
        shares = {place: large.shares for place, large in seen.items()}
        large = {place: share >= config.token_share for place, share in shares.items()}
        often = {
            stack: _share_of_blocks(large, stack) >= config.layer_share
            for stack in dict.fromkeys(place.stack for place in shares)
        }
        return {
            place: Verdict(share, _strongest(share, large[place] & often[place.stack]))
            for place, share in shares.items()
        }

    return Recogniser(verdicts, {place: large.see for place, large in seen.items()})


def _share_of_blocks(large: Mapping[Place, Tensor], stack: str) -> Tensor:
    """Share of a stack's blocks in which each dimension is large, (D,). A block with several norms
    counts if any of them has it.
    """
    blocks: dict[int, list[Tensor]] = {}
    for place, found in large.items():
        if place.stack == stack and place.block is not None:
            blocks.setdefault(place.block, []).append(found)
    anywhere = [torch.stack(places).any(dim=0) for places in blocks.values()]
    return torch.stack(anywhere).double().mean(dim=0)


CRITERIA: Mapping[str, Callable[[OutlierCriterion, PreTrainedModel], Recogniser]] = {
    "gamma_3sigma": _of_weights,
    "gamma_and_bias_3sigma": _of_weights,
    "activation_std": _of_spread,
    "activation_magnitude": _of_magnitude,
}


def places_of(config: OutlierCriterion, model: PreTrainedModel) -> list[Place]:
    """Places whose activations are used, in the order of the forward pass."""
    if config.places == "hidden_states":
        return [*hidden_states_of(model)]
    return [norm.site for norm in norms_of(model)]


def by_deviation(deviation: Tensor) -> Verdict:
    """Verdict with a threshold of three standard deviations."""
    return Verdict(deviation, _strongest(deviation, deviation > BORDER))


def standardised(values: Tensor) -> Tensor:
    """(values − mean) / std, or zeros if all values are equal.

    Example:
        >>> standardised(torch.tensor([1.0, 1.0, 4.0]).double()).round(decimals=2).tolist()
        [-0.71, -0.71, 1.41]
    """
    off = values - values.mean()
    std = off.square().mean().sqrt()
    return off / std if float(std) > 0 else torch.zeros_like(off)


def _strongest(strength: Tensor, counts: Tensor) -> list[int]:
    order = torch.argsort(strength, descending=True, stable=True)
    return [int(j) for j in order[counts[order]]]
