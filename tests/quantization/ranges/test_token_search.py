"""The search for α on a whole tiny model: what it finds, and what it may leave out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

import tiny
from attar.models.simulated.qparams import Bits
from attar.models.simulated.quantized import Quantizer, site_of
from attar.models.structure.ports import inserted, use_attar_attention_
from attar.models.structure.sites import sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import calibrate
from attar.quantization.calibration.rounding import Rounding
from attar.quantization.config import QuantizeStep
from attar.quantization.method import BitPlan, Problem
from attar.quantization.ranges.minmax import minmax
from attar.quantization.ranges.omse import omse
from attar.quantization.ranges.token_wise_clipping import TokenRanges, token_wise_clipping
from attar.quantization.solve import simulated
from attar.quantization.weights.nearest import quantize_weights
from attar.step import StepContext

NUM_TRIED = 12


def make_problem(bits: int = 5, **settings: Any) -> Problem:
    """A tiny BERT with loud norms and four batches of texts of different lengths."""
    model = tiny.tiny_model("bert", blocks=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("LayerNorm.weight"):
                parameter[3] *= 3
    use_attar_attention_(model)
    batches = [tiny.tiny_batch(tokens=4 + 2 * n, seed=n) for n in range(4)]
    here = Path()
    context = StepContext("int8", here, here, {}, {}, here, Progress(quiet=True))
    if "method" not in settings:
        settings = {"method": "token_wise_clipping", "candidates": NUM_TRIED, **settings}
    config = TypeAdapter(QuantizeStep).validate_python(
        {"model": "m", "calibration": {"data": "d"}, "activation_bits": bits, **settings}
    )
    plan = BitPlan(Bits(weight=bits, embedding=bits, activation=bits))
    on_grid = simulated(model, quantize_weights(model, plan.weight))
    seen = calibrate(model, sites_of(model), batches, context)
    return Problem(config, context, None, plan, model, on_grid, seen)


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_giving_up_early_changes_nothing_about_the_winner(loss):
    quick = token_wise_clipping(make_problem(loss=loss))
    whole = token_wise_clipping(make_problem(loss=loss, whole_curve=True))
    assert quick.ranges == whole.ranges
    quick_found, whole_found = quick.details["clipping"], whole.details["clipping"]
    assert quick_found["output_error"] == whole_found["output_error"]
    assert all(candidate["is_whole"] for candidate in whole_found["candidates"])
    assert not all(candidate["is_whole"] for candidate in quick_found["candidates"])
    for bound, full in zip(quick_found["candidates"], whole_found["candidates"], strict=True):
        assert bound["output_error"] <= full["output_error"]


def test_the_winner_is_the_least_of_the_whole_curve():
    problem = make_problem(whole_curve=True)
    ranges = TokenRanges.of(problem.calibration)
    errors = [problem.output_error(ranges.at(number)) for number in range(NUM_TRIED)]
    found = token_wise_clipping(problem)
    assert found.details["clipping"]["output_error"] == min(errors)
    assert found.ranges == ranges.at(errors.index(min(errors)))
    assert errors.index(min(errors)) > 0


def test_an_alpha_a_kind_is_never_worse_than_one_for_all():
    everywhere = token_wise_clipping(make_problem()).details["clipping"]
    found = token_wise_clipping(make_problem(alpha="per_kind")).details["clipping"]
    assert found["output_error"] < everywhere["output_error"]
    assert "attention_probs" not in found["alpha_of_kinds"]
    assert found["num_passes"] <= NUM_TRIED + 8 * len(found["alpha_of_kinds"])


def test_an_error_up_to_a_limit_is_whole_or_proves_that_it_is_larger():
    problem = make_problem()
    ranges = minmax(problem).ranges
    bounds = [problem.output_error_up_to(share, ranges) for share in (1e-9, 1e-2, 1e9)]
    whole = problem.output_error(ranges)
    for limit, bound in zip((1e-9, 1e-2, 1e9), bounds, strict=True):
        assert bound.value == whole if bound.is_whole else limit < bound.value <= whole
    assert not bounds[0].is_whole
    assert bounds[2].is_whole


def test_an_error_once_known_costs_no_other_pass():
    problem = make_problem()
    ranges = minmax(problem).ranges
    first = problem.output_error(ranges)
    assert problem.calibration.num_quantized_passes == 1
    assert problem.output_error_up_to(0.0, ranges).value == first
    assert problem.output_error(ranges, "kl") > 0
    assert problem.calibration.num_quantized_passes == 1


def test_a_bound_is_run_again_when_more_is_asked_for():
    problem = make_problem()
    ranges = minmax(problem).ranges
    bound = problem.output_error_up_to(1e-9, ranges)
    assert problem.output_error(ranges) > bound.value
    assert problem.output_error_up_to(math.inf, ranges).is_whole


def test_rounding_is_the_quantizer_bit_for_bit():
    problem = make_problem(bits=6)
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 7
    for grid in problem.grids(minmax(problem).ranges):
        ties = (torch.arange(-90, 90) + 0.5) * grid.scale
        for values in (x, ties):
            assert torch.equal(Rounding(grid)(values), Quantizer.of(grid)(values))


def test_outputs_are_those_of_the_quantizers():
    problem = make_problem(bits=6)
    grids = problem.grids(minmax(problem).ranges)
    found = problem.calibration.quantized_logits(problem.on_grid, grids)
    quantizers = {site_of(grid): Quantizer.of(grid) for grid in grids}
    with torch.no_grad(), inserted(problem.on_grid, quantizers):
        for batch, logits in zip(problem.calibration.batches, found, strict=True):
            assert torch.equal(problem.on_grid(**batch).logits, logits)


@pytest.mark.parametrize("on", ["values", "histogram"])
@pytest.mark.parametrize("search", ["grid", "golden_section"])
def test_omse_has_a_range_for_every_site_within_its_values(search, on):
    problem = make_problem(method="omse", search=search, on=on)
    found = omse(problem)
    seen = problem.calibration.statistics
    assert found.ranges.keys() == seen.keys()
    assert found.details["omse"]["on"] == on
    for site, (low, high) in found.ranges.items():
        width = max(seen[site].high, 0) - min(seen[site].low, 0)
        assert 0 < high - low <= width * (1 + 1e-6), site
