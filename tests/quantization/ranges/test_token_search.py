"""The search for α on a whole tiny model: what it finds, and what it may leave out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

import tiny
from attar.models.simulated.qparams import Bits
from attar.models.simulated.quantized import Quantizer
from attar.models.structure.ports import inserted, use_attar_attention_
from attar.models.structure.sites import Site, sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import calibrate, site_sqnr
from attar.quantization.calibration.rounding import Rounding
from attar.quantization.config import QuantizeStep
from attar.quantization.method import BitPlan, Problem
from attar.quantization.ranges.extremes import minmax
from attar.quantization.ranges.omse import omse, range_of_histogram, range_of_values
from attar.quantization.ranges.token_wise_clipping import (
    TokenRanges,
    alpha_of,
    token_wise_clipping,
)
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
    tried = [candidate["alpha"] for candidate in whole_found["candidates"]]
    assert tried == [alpha_of(number) for number in range(NUM_TRIED)]
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


def test_an_alpha_a_kind_is_what_a_plain_search_finds_and_what_is_handed_out():
    """From the best α for all, each kind in turn by 8, 4, 2 and 1 hundredths down and up; a move is
    kept where the whole error of the outputs falls."""
    problem = make_problem(alpha="per_kind")
    answer = token_wise_clipping(problem)
    found, ranges = answer.details["clipping"], TokenRanges.of(problem.calibration)
    everywhere = [problem.output_error(ranges.at(number)) for number in range(NUM_TRIED)]
    error, start = min(everywhere), everywhere.index(min(everywhere))
    best = dict.fromkeys(found["alpha_of_kinds"], start)
    for move in (8, 4, 2, 1):
        for kind in best:
            here = best[kind]
            for number in (here - move, here + move):
                moved = {**best, kind: number}
                if 0 <= number < 100 and problem.output_error(ranges.at(start, moved)) < error:
                    best, error = moved, problem.output_error(ranges.at(start, moved))
    assert len(set(best.values())) > 2
    assert found["alpha_of_kinds"] == {kind: alpha_of(number) for kind, number in best.items()}
    assert found["output_error"] == error
    assert answer.ranges == ranges.at(start, best)


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
    quantizers = {grid.site: Quantizer.of(grid) for grid in grids}
    with torch.no_grad(), inserted(problem.on_grid, quantizers):
        for batch, logits in zip(problem.calibration.batches, found, strict=True):
            assert torch.equal(problem.on_grid(**batch).logits, logits)


def test_decibels_of_a_site_are_its_values_over_their_error():
    problem = make_problem(bits=3)
    grids = problem.grids(minmax(problem).ranges)
    found = site_sqnr(problem.model, grids, problem.calibration)
    site, grid = grids[3].site, grids[3]
    seen: list[torch.Tensor] = []
    problem.calibration.watch(problem.model, {site: seen.append}, "values")
    x = torch.cat(seen).double()
    integers = ((x / grid.scale).round() + grid.zero_point).clamp(grid.quant_min, grid.quant_max)
    error = (integers - grid.zero_point) * grid.scale - x
    assert found[site.name] == pytest.approx(20 * math.log10(x.norm() / error.norm()), rel=1e-5)


@pytest.mark.parametrize("search", ["grid", "golden_section"])
def test_omse_on_values_is_the_mean_of_the_batches_optima_at_the_width_of_each_site(search):
    problem = make_problem(method="omse", search=search, on="values")
    sites = list(problem.calibration.statistics)
    problem = replace(problem, plan=replace(problem.plan, of_sites={sites[0].name: 3}))
    seen: dict[Site, list[torch.Tensor]] = {site: [] for site in sites}
    problem.calibration.watch(problem.model, {s: seen[s].append for s in sites}, "values")
    found = omse(problem)
    assert found.details["omse"]["on"] == "values"
    assert found.ranges.keys() == seen.keys()
    for site, batches in seen.items():
        assert len(batches) == 4
        ends = [range_of_values(values, 3 if site == sites[0] else 5, search) for values in batches]
        means = [sum(side) / 4 for side in zip(*ends, strict=True)]
        assert found.ranges[site] == pytest.approx(means, rel=1e-12, abs=1e-12), site


@pytest.mark.parametrize("search", ["grid", "golden_section"])
def test_omse_on_histograms_is_the_optimum_of_all_values_at_the_width_of_each_site(search):
    problem = make_problem(method="omse", search=search, on="histogram")
    sites = list(problem.calibration.statistics)
    problem = replace(problem, plan=replace(problem.plan, of_sites={sites[0].name: 3}))
    found = omse(problem)
    assert found.details["omse"]["on"] == "histogram"
    assert found.ranges.keys() == problem.calibration.statistics.keys()
    for site, seen in problem.calibration.statistics.items():
        bits = 3 if site == sites[0] else 5
        assert found.ranges[site] == range_of_histogram(seen.histogram, bits, search), site
