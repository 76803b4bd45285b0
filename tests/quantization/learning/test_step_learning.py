"""The fine stage: it helps texts it did not learn from, or it changes nothing."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from attar.errors import StoppedError
from attar.quantization.config import StepSizeStep, TokenWiseClippingStep
from attar.quantization.learning.step_learning import largest_move, learn_steps
from attar.quantization.weights.nearest import put_on_grid_
from problems import TEXTS, problem_of

SUMMED = 1e-6
"""Relative; the same float32 errors, summed batch by batch."""
QUICK = {"model": "m", "calibration": TEXTS, "epochs": 4, "learning_rate": 3e-3}


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


@pytest.mark.parametrize("factor", [3, 1 / 3], ids=["too large", "too small"])
def test_mis_set_steps_are_brought_to_where_the_error_is_least(factor):
    """The outputs of two ReLUs at 4 bits, all else in float, each with one parameter to find.

    An update of Adam is about its rate, whose mean over a cosine is a half: the rate is that whose
    travel is twice the way back from three times the step.
    """
    epochs, updates = 8, 8 * 6
    problem, start = problem_of(TokenWiseClippingStep(**QUICK), hidden_act="relu")
    well_set = [grid for grid in start.grids if grid.kind == "ffn_act"]
    assert len(well_set) == 2 and all(grid.zero_point == 0 for grid in well_set)
    mis_set = [g.model_copy(update={"scale": factor * g.scale}) for g in well_set]
    way = 2 * max(grid.scale for grid in well_set)
    config = StepSizeStep(**{**QUICK, "epochs": epochs, "learning_rate": 2 * way / (updates / 2)})
    found = learn_steps(replace(problem, config=config), replace(start, grids=mis_set))
    least, before, after = (
        problem.calibration.output_error(problem.on_grid, grids)
        for grids in (well_set, mis_set, found.grids)
    )
    assert before > 3 * least
    assert after < 1.2 * least


def test_attention_probabilities_keep_their_grids(learned):
    _, start, found = learned
    moved = {g.kind for g, old in zip(found.grids, start.grids, strict=True) if g != old}
    assert "attention_probs" not in moved and len(moved) > 5


def test_the_model_is_as_it_was(learned):
    problem, start, _ = learned
    learning = [parameter.requires_grad for parameter in problem.on_grid.parameters()]
    assert learning and all(learning)
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
    with pytest.raises(StoppedError, match="starts over on resume"):
        learn_steps(problem, start)
    assert not [n for n, _ in problem.on_grid.named_modules() if ".at_" in n]
