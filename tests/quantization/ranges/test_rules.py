"""Ranges of the calibrators where they can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attar.models.simulated.qparams import Bits
from attar.models.structure.sites import Site
from attar.progress import Progress
from attar.quantization.calibration.calibrate import Calibration
from attar.quantization.calibration.observers import SiteStatistics
from attar.quantization.config import Calibration as CalibrationSettings
from attar.quantization.config import EmaMinmaxStep, MinmaxStep, QuantizeSettings, StepSizeStep
from attar.quantization.method import BitPlan, Problem
from attar.quantization.ranges.extremes import ema_minmax, mean_3sigma, minmax
from attar.quantization.ranges.token_wise_clipping import (
    TokenRanges,
    alpha_of,
    narrowest_width,
    num_candidates,
)
from attar.step import StepContext

SITE = Site("encoder.norm", "output", "ffn_norm", 0)
PROBABILITIES = Site("attention", "probabilities", "attention_probs", 0)
TEXTS = CalibrationSettings(data="texts")


def calibration(**batches: Any) -> Calibration:
    statistics = {SITE: SiteStatistics(), PROBABILITIES: SiteStatistics()}
    for batch in batches.get("tokens", []):
        statistics[SITE].add(batch)
    for batch in batches.get("probabilities", [torch.tensor([[0.0, 1.0]])]):
        statistics[PROBABILITIES].add(batch, by_token=False)
    here = Path()
    context = StepContext("int8", here, here, {}, {}, here, Progress(quiet=True))
    return Calibration([], statistics, [], 0.0, context)


def problem(config: QuantizeSettings, *batches: torch.Tensor) -> Problem:
    seen = calibration(tokens=batches)
    plan = BitPlan(Bits(weight=8, embedding=8, activation=config.activation_bits))
    return Problem(config, seen.context, None, plan, None, None, seen)  # type: ignore[arg-type]


def test_a_moving_average_starts_at_the_first_batch_and_follows_the_others():
    config = EmaMinmaxStep(model="m", calibration=TEXTS, momentum=0.75)
    batches = [torch.tensor([low, high]) for low, high in ((-4.0, 8.0), (-8.0, 0.0), (0.0, 4.0))]
    found = ema_minmax(problem(config, *batches)).ranges[SITE]
    assert found == (0.75 * -5.0, 0.75 * 6.0 + 0.25 * 4.0)


def test_minmax_is_the_mean_of_the_batches_ends():
    config = MinmaxStep(model="m", calibration=TEXTS)
    batches = [torch.tensor([low, high]) for low, high in ((-4.0, 8.0), (-8.0, 0.0), (0.0, 4.0))]
    assert minmax(problem(config, *batches)).ranges[SITE] == (-4.0, 4.0)


def test_three_sigma_are_those_of_all_values_of_all_batches():
    config = StepSizeStep(model="m", calibration=TEXTS)
    x = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0)) * 2 + 1
    low, high = mean_3sigma(problem(config, x[:1000], x[1000:])).ranges[SITE]
    mean, std = float(x.double().mean()), float(x.double().std(correction=0))
    assert (low, high) == pytest.approx((mean - 3 * std, mean + 3 * std), rel=1e-9)


def test_three_sigma_never_reach_beyond_the_values():
    config = StepSizeStep(model="m", calibration=TEXTS)
    assert mean_3sigma(problem(config, torch.tensor([0.0, 1.0, 1.0]))).ranges[SITE] == (0, 1)
    tenth = torch.full((3, 7), 0.1)
    low, high = mean_3sigma(problem(config, tenth)).ranges[SITE]
    assert low <= high
    assert (low, high) == pytest.approx((0.1, 0.1), abs=1e-8)


def test_three_sigma_leave_attention_probabilities_whole():
    """Twenty tokens look at one: μ + 3σ of their probabilities is far below the 0.9 it gets."""
    config = StepSizeStep(model="m", calibration=TEXTS)
    attended = torch.full((20, 20), 0.1 / 19)
    attended[:, 0] = 0.9
    seen = calibration(tokens=[torch.ones(3, 2)], probabilities=[attended])
    plan = BitPlan(Bits(weight=8, embedding=8, activation=8))
    whole = Problem(config, seen.context, None, plan, None, None, seen)  # type: ignore[arg-type]
    assert attended.mean() + 3 * attended.std() < 0.7
    low, high = mean_3sigma(whole).ranges[PROBABILITIES]
    assert (low, high) == pytest.approx((0.1 / 19, 0.9))


def test_a_token_range_is_a_quantile_of_the_tokens_extremes():
    """101 tokens whose largest values are 0 … 100 and whose smallest are 0 … −200."""
    steps = torch.arange(101.0)
    tokens = torch.stack([steps, -2 * steps, 0 * steps], dim=1)[torch.randperm(101)]
    ranges = TokenRanges.of(calibration(tokens=[tokens[:40], tokens[40:]]))
    for number in (0, 1, 10, 50):
        low, high = ranges.at(number)[SITE]
        assert (low, high) == pytest.approx((-2 * (100 - number), 100 - number), abs=1e-9)


def test_at_alpha_one_nothing_is_clipped():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    found = TokenRanges.of(calibration(tokens=[x[:20], x[20:]])).at(0)[SITE]
    assert found == (float(x.min()), float(x.max()))


def test_zero_stays_in_a_range_that_is_clipped_down_to_one_side_of_it():
    """Every token of these lies above zero, or every one below: zero is on each grid."""
    steps = torch.arange(1.0, 102.0)[:, None]
    for tokens, ends in ((steps, (0, 51)), (-steps, (-51, 0))):
        ranges = TokenRanges.of(calibration(tokens=[tokens]))
        assert ranges.at(50)[SITE] == pytest.approx(ends, abs=1e-9)


def test_the_narrowest_site_decides_how_many_alphas_are_tried():
    whole = problem(MinmaxStep(model="m", calibration=TEXTS), torch.ones(3, 2))
    plan = BitPlan(Bits(weight=8, embedding=8, activation=6), {SITE.name: 4})
    assert narrowest_width(replace(whole, plan=plan)) == 4


def test_probabilities_are_never_clipped():
    seen = calibration(tokens=[torch.randn(9, 4)], probabilities=[torch.tensor([[0.1, 0.9]])])
    ranges = TokenRanges.of(seen)
    lowest, highest = (float(x) for x in torch.tensor([0.1, 0.9]))
    assert all(ranges.at(n)[PROBABILITIES] == (lowest, highest) for n in (0, 30, 99))


def test_one_loud_token_costs_the_share_of_one_token():
    """A share of values would have to pass all 64 loud values first."""
    x = torch.rand(100, 64, generator=torch.Generator().manual_seed(0))
    x[7] = 500.0
    ranges = TokenRanges.of(calibration(tokens=[x]))
    assert ranges.at(0)[SITE][1] == 500
    assert ranges.at(2)[SITE][1] <= 1


def test_a_kind_may_have_an_alpha_of_its_own():
    x = torch.arange(101.0)[:, None]
    ranges = TokenRanges.of(calibration(tokens=[x]))
    assert ranges.at(5, {"ffn_norm": 20})[SITE] == ranges.at(20)[SITE]
    assert ranges.at(5, {"ffn_act": 20})[SITE] == ranges.at(5)[SITE]


def test_candidates_are_the_authors_and_shares_are_exact():
    assert [num_candidates(bits) for bits in (8, 6, 4)] == [10, 30, 90]
    assert [num_candidates(bits) for bits in (7, 5, 3, 2)] == [20, 60, 90, 90]
    assert [alpha_of(k) for k in (0, 1, 7, 30, 90)] == [1.0, 0.99, 0.93, 0.7, 0.1]
