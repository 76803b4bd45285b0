"""Ranges of each method where they can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attar.models.simulated.qparams import Bits
from attar.models.structure.sites import Site
from attar.progress import Progress
from attar.quantization.calibration.calibrate import Calibration
from attar.quantization.calibration.observers import SiteStatistics
from attar.quantization.config import Calibration as CalibrationSettings
from attar.quantization.config import MinmaxStep, PercentileStep, QuantizeSettings
from attar.quantization.method import BitPlan, Problem
from attar.quantization.ranges.extremes import minmax
from attar.quantization.ranges.percentile import percentile
from attar.step import StepContext

SITE = Site("encoder.norm", "output", "ffn_norm", 0)
TEXTS = CalibrationSettings(data="texts")


def problem(config: QuantizeSettings, *batches: torch.Tensor) -> Problem:
    """What a range finder is given after calibration saw these values at one site; no model."""
    statistics = SiteStatistics()
    for batch in batches:
        statistics.add(batch)
    here = Path()
    context = StepContext("int8", here, here, {}, {}, here, Progress(quiet=True))
    calibration = Calibration([], {SITE: statistics}, [], 0.0, context)
    plan = BitPlan(Bits(weight=8, embedding=8, activation=config.activation_bits))
    return Problem(config, context, None, plan, None, None, calibration)


def test_minmax_is_the_mean_of_the_batches_ends_not_their_extremes():
    config = MinmaxStep(model="m", calibration=TEXTS)
    found = minmax(problem(config, torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([-5.0, 4.0])))
    assert found.ranges == {SITE: (-3.0, 3.0)}


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_a_percentile_cuts_its_share_on_both_sides(share):
    values = torch.linspace(-1, 3, 4001)
    config = PercentileStep(model="m", calibration=TEXTS, percentile=share)
    found = percentile(problem(config, values[:1000], values[1000:]))
    low, high = found.ranges[SITE]
    assert low == pytest.approx(-1 + 4 * (1 - share), abs=0.003)
    assert high == pytest.approx(3 - 4 * (1 - share), abs=0.003)
    assert found.details == {"percentile": share}


def test_a_percentile_forgives_one_outlier_that_minmax_does_not():
    values = torch.linspace(-1, 1, 10_000)
    values[5000] = 500.0
    config = PercentileStep(model="m", calibration=TEXTS, percentile=0.999)
    assert percentile(problem(config, values)).ranges[SITE][1] < 1.1
    widest = minmax(problem(MinmaxStep(model="m", calibration=TEXTS), values))
    assert widest.ranges[SITE][1] == 500
