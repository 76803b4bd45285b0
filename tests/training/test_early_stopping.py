"""Training that ends when validation no longer gets better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import training_runs
from attar.errors import StoppedError
from attar.training.config import TrainStep
from attar.training.saving.history import log_evaluation
from attar.training.saving.state import Place

STILL: dict[str, Any] = {"learning_rate": 1e-12, "max_steps": 12, "evaluations": 6}
"""So small a rate that no evaluation is better than the first."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_runs.prepare(tmp_path_factory.mktemp("patience"))


def train(place: Path, out: Path, **settings: Any) -> dict[str, Any]:
    return training_runs.run_training(out, recipe_folder=place, **{**STILL, **settings})


def test_it_ends_after_so_many_evaluations_without_a_better_one(
    place: Path, tmp_path: Path
) -> None:
    metrics = train(place, tmp_path, patience=2)
    assert (metrics["best_step"], metrics["kept_step"], metrics["steps"]) == (2, 2, 6)
    history = training_runs.read_history(tmp_path)
    assert [line["step"] for line in history if "validation" in line] == [2, 4, 6]
    assert all("learning_rate" in line for line in history if "loss" in line)
    assert train(place, tmp_path / "patient")["steps"] == 12


def test_of_equal_metrics_the_lower_loss_is_better() -> None:
    place = Place()
    is_best: list[bool] = []
    for place.step, (merit, loss) in enumerate(
        [(1.0, 0.4), (1.0, 0.2), (1.0, 0.2), (0.9, 0.1), (1.0, 0.3), (1.1, 0.9)]
    ):
        is_best.append(log_evaluation(place, {"accuracy": merit, "loss": loss}, merit, 0.0))
    assert is_best == [True, True, False, False, False, True]
    assert (place.best_step, place.best_value, place.best_loss) == (5, 1.1, 0.9)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_that_was_stopped_ends_where_an_uninterrupted_one_ends(
    place: Path, tmp_path: Path, keep: str
) -> None:
    settings = {"patience": 2, "keep": keep, "checkpoint_every": 1, "learning_rate": 3e-3}
    whole = train(place, tmp_path / "whole", **settings)
    asked = iter([False] * 3 + [True] * 99)
    with pytest.raises(StoppedError):
        train(place, tmp_path / "cut", should_stop=lambda: next(asked), **settings)
    cut = train(place, tmp_path / "cut", **settings)
    assert (cut["steps"], cut["kept_step"]) == (whole["steps"], whole["kept_step"])
    ours, theirs = (training_runs.read_weights(tmp_path / name) for name in ("cut", "whole"))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_equal_flops_have_no_early_end() -> None:
    with pytest.raises(ValidationError, match="patience may stop training early"):
        TrainStep(model="m", data="d", patience=2, match_flops="other")
