"""The fine stage: it helps texts it did not learn from, or it changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import tiny
from attar.errors import StoppedError
from attar.models.simulated.qparams import Bits
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.sites import sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import calibrate
from attar.quantization.config import Calibration as CalibrationSettings
from attar.quantization.config import QuantizeSettings, StepSizeStep, TokenWiseClippingStep
from attar.quantization.learning.step_learning import largest_move, learn_steps
from attar.quantization.method import BitPlan, Problem, Solution
from attar.quantization.ranges.minmax import minmax
from attar.quantization.weights.nearest import put_on_grid_, quantize_weights
from attar.step import StepContext

TEXTS = CalibrationSettings(data="texts")
SUMMED = 1e-6
"""Relative; the same float32 errors, summed batch by batch."""
QUICK = {"model": "m", "calibration": TEXTS, "epochs": 4, "learning_rate": 3e-3}


def problem_of(
    config: QuantizeSettings, *, batches: int = 8, activation: int = 4, seed: int = 0, stop=None
) -> tuple[Problem, Solution]:
    """A tiny model after its coarse stage."""
    model = tiny.tiny_model("bert", seed=seed)
    use_attar_attention_(model)
    here = Path()
    context = StepContext("q", here, here, {}, {}, here, Progress(quiet=True), seed=seed)
    texts = [tiny.tiny_batch(batch=4, seed=100 * seed + i) for i in range(batches)]
    calibration = calibrate(model, sites_of(model), texts, context)
    plan = BitPlan(Bits(weight=8, embedding=8, activation=activation))
    weights = quantize_weights(model, plan.weight)
    on_grid = copy.deepcopy(model)
    put_on_grid_(on_grid, weights)
    if stop is not None:
        context = StepContext(
            "q", here, here, {}, {}, here, Progress(quiet=True), seed=seed, should_stop=stop
        )
    problem = Problem(config, context, None, plan, model, on_grid, calibration)
    return problem, Solution(problem.grids(minmax(problem).ranges), weights, {"alpha": 0.9})


@pytest.fixture(scope="module")
def learned():
    problem, start = problem_of(TokenWiseClippingStep(**QUICK))
    return problem, start, learn_steps(problem, start)


def test_learned_steps_help_texts_they_were_not_learned_from(learned):
    _, start, found = learned
    fine = found.details["fine"]
    assert not fine["rolled_back"]
    assert fine["held_out"]["after"] < 0.97 * fine["held_out"]["before"]
    assert (fine["learned"]["batches"], fine["held_out"]["batches"]) == (6, 2)
    assert found.details["alpha"] == 0.9
    assert found.grids != start.grids and found.weights is start.weights


def test_the_largest_move_is_told_and_bounded_by_rate_and_updates(learned):
    """Adam moves by at most about its rate an update: here 4 epochs of 6 batches at 3e-3."""
    _, start, found = learned
    fine = found.details["fine"]
    smallest = min(grid.scale for grid in start.grids)
    assert 0.01 < fine["largest_move"] < 4 * 6 * 3e-3 / smallest


def test_the_largest_move_is_that_of_one_site(learned):
    start = list(learned[1].grids[:3])
    moves = zip(start, (1.1, 0.7, 1.0), strict=True)
    found = [grid.model_copy(update={"scale": grid.scale * by}) for grid, by in moves]
    assert largest_move(start, found) == pytest.approx(0.3)


def test_the_losses_told_are_those_of_the_grids_that_are_stored(learned):
    problem, start, found = learned
    fine = found.details["fine"]
    assert 0 < fine["kept_epoch"] < fine["epochs"], "the test needs an epoch before the last"
    for when, grids in (("before", start.grids), ("after", found.grids)):
        error = problem.calibration.output_error(problem.on_grid, grids)
        parts = 6 * fine["learned"][when] + 2 * fine["held_out"][when]
        assert fine["all"][when] == pytest.approx(error, rel=SUMMED)
        assert parts / 8 == pytest.approx(error, rel=SUMMED)


@pytest.mark.parametrize("seed", [0, 2])
def test_an_epoch_that_helps_held_out_texts_and_harms_all_is_not_kept(seed):
    """Here the first epoch makes the error of two batches less and that of all six greater."""
    settings = {**QUICK, "learning_rate": 1e-3}
    problem, start = problem_of(TokenWiseClippingStep(**settings), batches=6, seed=seed)
    found = learn_steps(problem, start)
    fine = found.details["fine"]
    assert fine["all"]["after"] <= fine["all"]["before"]
    after = problem.calibration.output_error(problem.on_grid, found.grids)
    assert after <= problem.calibration.output_error(problem.on_grid, start.grids)
    if fine["rolled_back"]:
        assert list(found.grids) == list(start.grids)
        assert fine["learned"]["after"] == fine["learned"]["before"]


def test_attention_probabilities_keep_their_grids(learned):
    _, start, found = learned
    moved = {g.kind for g, old in zip(found.grids, start.grids, strict=True) if g != old}
    assert "attention_probs" not in moved and len(moved) > 5


def test_the_model_is_as_it_was(learned):
    problem, start, _ = learned
    assert all(parameter.requires_grad for parameter in problem.on_grid.parameters())
    again = copy.deepcopy(problem.model)
    put_on_grid_(again, start.weights)
    state = problem.on_grid.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(state[n], t) for n, t in again.state_dict().items())


def test_what_does_not_help_is_rolled_back():
    """Steps as large as the range itself make every grid worse."""
    problem, start = problem_of(TokenWiseClippingStep(**{**QUICK, "learning_rate": 50.0}))
    found = learn_steps(problem, start)
    fine = found.details["fine"]
    assert fine["rolled_back"] and fine["kept_epoch"] == 0
    assert list(found.grids) == list(start.grids)
    for texts in ("learned", "held_out", "all"):
        assert fine[texts]["after"] == fine[texts]["before"]


@pytest.mark.parametrize(
    "config", [StepSizeStep(**QUICK), TokenWiseClippingStep(**QUICK, loss="kl")]
)
def test_every_loss_can_be_learned_from_and_twice_is_the_same(config):
    found = [learn_steps(*problem_of(config, seed=1, batches=3)) for _ in range(2)]
    assert found[0].grids == found[1].grids
    fine = found[0].details["fine"]
    assert fine["held_out"]["after"] <= fine["held_out"]["before"]
    assert fine["loss"] == getattr(config, "loss", "mse")


def test_one_batch_leaves_nothing_to_hold_out():
    problem, start = problem_of(TokenWiseClippingStep(**QUICK), batches=1)
    assert learn_steps(problem, start) is start


def test_a_stop_request_stops_it_and_takes_the_quantizers_out():
    polls = iter(range(1000))
    problem, start = problem_of(TokenWiseClippingStep(**QUICK), stop=lambda: next(polls) == 12)
    with pytest.raises(StoppedError, match="starts again on resume"):
        learn_steps(problem, start)
    assert not [n for n, _ in problem.on_grid.named_modules() if ".at_" in n]
