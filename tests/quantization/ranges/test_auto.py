"""`auto`: by construction nearer to float than any single rule; gradients is that of outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from attar.models.simulated.qparams import Bits
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.sites import sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import calibrate
from attar.quantization.config import AutoStep, Calibration
from attar.quantization.method import BitPlan, Problem
from attar.quantization.ranges.auto import _most_hurtful_first, _proposals, auto_ranges
from attar.quantization.ranges.extremes import minmax
from attar.quantization.ranges.gradient_weighted import OutputGradients
from attar.quantization.ranges.percentile import ranges_at
from attar.quantization.ranges.token_wise_clipping import TokenRanges
from attar.quantization.solve import simulated
from attar.quantization.weights.nearest import quantize_weights
from attar.seeds import generator
from attar.step import StepContext

BITS = 4


@pytest.fixture(scope="module")
def problem() -> Problem:
    model = tiny.tiny_model("bert").eval()
    with torch.no_grad():  # an outlier dimension, as real models have
        model.bert.encoder.layer[0].output.LayerNorm.weight[3] = 12.0
    use_attar_attention_(model)
    here = Path()
    context = StepContext("int4", here, here, {}, {}, here, Progress(quiet=True))
    ids = torch.randint(5, 40, (24, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::2, 6:] = 0
    batches = [
        {"input_ids": ids[i : i + 8], "attention_mask": mask[i : i + 8]} for i in range(0, 24, 8)
    ]
    calibration = calibrate(model, sites_of(model), batches, context)
    bits = Bits(weight=BITS, embedding=BITS, activation=BITS)
    config = AutoStep(model="m", calibration=Calibration(data="texts"), activation_bits=BITS)
    on_grid = simulated(model, quantize_weights(model, bits))
    return Problem(config, context, None, BitPlan(bits), model, on_grid, calibration, here)


def test_the_answer_is_no_worse_than_any_rule(problem: Problem) -> None:
    found = auto_ranges(problem)
    error = problem.output_error(found.ranges)
    assert error == pytest.approx(found.details["ranges"]["output_error"])
    rules = [minmax(problem).ranges, TokenRanges.of(problem.calibration).at(3)]
    rules += [ranges_at(share, problem.calibration) for share in (0.99, 0.999, 0.9999)]
    assert all(error <= problem.output_error(rule) + 1e-12 for rule in rules)
    assert found.details["ranges"]["exchanged_kinds"]
    assert error < min(problem.output_error(rule) for rule in rules)


def test_every_kind_has_the_ranges_of_the_rule_that_is_named_for_it(problem: Problem) -> None:
    """Exchanges add up, and kinds are tried in the order of what all their sites lose together."""
    found = auto_ranges(problem)
    details, gradients = found.details["ranges"], OutputGradients.of(problem)
    proposals = _proposals(problem, gradients)
    exchanged, start = details["exchanged_kinds"], details["start"]
    assert len(exchanged) > 1
    assert details["proposals"].keys() == proposals.keys()
    ranked = sorted(proposals, key=lambda name: details["proposals"][name])
    assert ranked[0] == start
    assert set(exchanged.values()) <= set(ranked[1:4])
    for site, ends in found.ranges.items():
        assert ends == proposals[exchanged.get(site.kind, start)][site], site.name
    lost: dict[str, list[float]] = {}
    for site, (low, high) in proposals[start].items():
        lost.setdefault(site.kind, []).append(gradients.lost(site, low, high, BITS))
    assert max(map(len, lost.values())) == 2
    order = _most_hurtful_first(problem, proposals[start], gradients)
    assert order == sorted(lost, key=lambda kind: sum(lost[kind]), reverse=True)
    assert list(exchanged) == [kind for kind in order if kind in exchanged]


def test_a_range_by_gradient_loses_no_more_than_the_full_one(problem: Problem) -> None:
    gradients = OutputGradients.of(problem)
    full = minmax(problem).ranges
    for site, widest in problem.calibration.statistics.items():
        low, high = gradients.best_range(site, BITS)
        least = gradients.lost(site, low, high, BITS)
        assert least <= gradients.lost(site, widest.low, widest.high, BITS), site.name
        assert site in full


def test_sensitivity_predicts_what_a_small_error_does_to_the_outputs(problem: Problem) -> None:
    # at 8 bits rounding is small and unrelated: the first-order figure must be of the right size
    gradients = OutputGradients.of(problem)
    site = next(site for site in problem.calibration.statistics if site.kind == "ffn_norm")
    seen = problem.calibration.statistics[site]
    from attar.quantization.calibration.calibrate import grids_of

    grids = grids_of({site: (seen.low, seen.high)}, 8)
    outputs = sum(logits.numel() for logits in problem.calibration.logits)
    real = problem.calibration.output_error(problem.model, grids) * outputs
    predicted = gradients.lost(site, seen.low, seen.high, 8)
    assert 0.2 * real < predicted < 5 * real


def test_what_is_lost_is_each_squared_error_times_the_squared_gradient(problem: Problem) -> None:
    """Σ g² (x − Q(x))² over the real values of all batches, g the gradient of v·logits for the
    seeded signs v; bins of 1/2048 of the range move it by 3e-4."""
    model, site = problem.model, next(iter(problem.calibration.statistics))
    module = model.get_submodule(site.fqn)
    signs = generator(problem.context.seed, "signs of outputs")
    values, gradients = [], []
    for batch in problem.calibration.batches:
        caught: list[torch.Tensor] = []
        handle = module.register_forward_hook(lambda _, __, out, c=caught: c.append(out))
        logits = model(**batch).logits
        handle.remove()
        v = torch.from_numpy(signs.choice([-1.0, 1.0], size=tuple(logits.shape))).float()
        (gradient,) = torch.autograd.grad((logits * v).sum(), caught[0])
        real = batch["attention_mask"] > 0
        values.append(caught[0].detach()[real].double().flatten())
        gradients.append(gradient[real].double().flatten())
    x, g = torch.cat(values), torch.cat(gradients)
    low, high = float(x.quantile(0.02)), float(x.quantile(0.95))
    scale = (high - low) / 15
    zero = round(-low / scale)
    rounded = ((x / scale).round() + zero).clamp(0, 15).sub(zero) * scale
    wanted = float((g.square() * (x - rounded).square()).sum())
    gradients = OutputGradients.of(problem)
    assert gradients.lost(site, low, high, 4) == pytest.approx(wanted, rel=1e-3)


def test_the_range_by_gradient_is_the_best_of_both_ends_one_at_a_time(problem: Problem) -> None:
    gradients = OutputGradients.of(problem)
    shares = np.linspace(1.0, 0.02, 50)
    for site in list(problem.calibration.statistics)[:4]:
        seen = problem.calibration.statistics[site]
        low, high = gradients.best_range(site, BITS)
        least = gradients.lost(site, low, high, BITS)
        assert least < gradients.lost(site, seen.low, seen.high, BITS)
        for share in shares:
            assert gradients.lost(site, min(seen.low, 0) * share, high, BITS) >= least


def test_the_model_learns_nothing_from_being_asked(problem: Problem) -> None:
    before = {name: p.clone() for name, p in problem.model.named_parameters()}
    OutputGradients.of(problem)
    assert all(p.requires_grad and p.grad is None for p in problem.model.parameters())
    assert all(torch.equal(before[name], p) for name, p in problem.model.named_parameters())
