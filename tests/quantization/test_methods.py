"""Ranges of each method where they can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attar.models.structure.sites import Site
from attar.progress import Progress
from attar.quantization.calibration import Calibration
from attar.quantization.config import Calibration as CalibrationSettings
from attar.quantization.config import MinmaxStep, PercentileStep
from attar.quantization.minmax import minmax
from attar.quantization.observers import SiteStatistics
from attar.quantization.percentile import percentile
from attar.step import StepContext

SITE = Site("encoder.norm", "output", "ffn_norm", 0)
TEXTS = CalibrationSettings(data="texts")


def seen(*batches: torch.Tensor) -> Calibration:
    statistics = SiteStatistics()
    for batch in batches:
        statistics.add(batch)
    here = Path()
    context = StepContext("int8", here, here, {}, {}, here, Progress(quiet=True))
    return Calibration([], {SITE: statistics}, [], 0.0, context)


def test_minmax_is_the_mean_of_the_batches_ends_not_their_extremes():
    calibration = seen(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([-5.0, 4.0]))
    found = minmax(MinmaxStep(model="m", calibration=TEXTS), calibration, None)
    assert found.ranges == {SITE: (-3.0, 3.0)}


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_a_percentile_cuts_its_share_on_both_sides(share):
    values = torch.linspace(-1, 3, 4001)
    config = PercentileStep(model="m", calibration=TEXTS, percentile=share)
    found = percentile(config, seen(values[:1000], values[1000:]), None)
    low, high = found.ranges[SITE]
    assert low == pytest.approx(-1 + 4 * (1 - share), abs=0.003)
    assert high == pytest.approx(3 - 4 * (1 - share), abs=0.003)
    assert found.details == {"percentile": share}


def test_a_percentile_forgives_one_outlier_that_minmax_does_not():
    values = torch.linspace(-1, 1, 10_000)
    values[5000] = 500.0
    calibration = seen(values)
    config = PercentileStep(model="m", calibration=TEXTS, percentile=0.999)
    assert percentile(config, calibration, None).ranges[SITE][1] < 1.1
    widest = minmax(MinmaxStep(model="m", calibration=TEXTS), calibration, None)
    assert widest.ranges[SITE][1] == 500
