"""Gates on the page decide as the engine does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import made_up_run
from attar.recipe.outcome.gates import check_gates
from attar.recipe.schema import Gate as RecipeGate
from attar.report.reading import read_made
from attar.report.sections.gates import gates, measured_value

CASES: list[dict[str, Any]] = [
    {"metric": "scores.deploy.accuracy", "at_least": 0.7391},
    {"metric": "scores.deploy.accuracy", "at_least": 0.74},
    {"metric": "scores.deploy.size_mib", "at_most": 17.3},
    {"metric": "scores.models.deploy.latency_ms.p50", "at_most": 6.0},
    {"metric": "scores.deploy.accuracy", "of": "scores.student.accuracy", "max_drop": 0.01},
    {"metric": "scores.deploy.accuracy", "of": "scores.student.accuracy", "max_drop": 0.001},
    {"metric": "teacher.validation.accuracy", "at_least": 0.7},
]


@pytest.mark.parametrize("settings", CASES)
def test_the_page_and_the_engine_agree_on_a_gate(tmp_path: Path, settings: dict[str, Any]) -> None:
    made = read_made(made_up_run.write_run(tmp_path / "run"), made_up_run.recipe())
    metrics = {step.name: step.metrics for step in made}
    outcome = check_gates([RecipeGate(**settings)], metrics, tmp_path)[0]
    shown = gates(made, {"gates": [settings]})[0]
    assert shown.is_met is outcome.passed
    assert shown.measured == pytest.approx(outcome.value)


def test_a_gate_on_what_was_not_measured_is_neither_met_nor_missed(tmp_path: Path) -> None:
    made = read_made(made_up_run.write_run(tmp_path), made_up_run.recipe())
    found = gates(made, {"gates": [{"metric": "scores.deploy.f2", "at_least": 0.5}]})[0]
    assert (found.is_met, found.measured) == (None, None)


def test_a_figure_without_a_value_and_a_name_with_dots_are_judged_as_the_engine_does(
    tmp_path: Path,
) -> None:
    inputs = made_up_run.write_run(tmp_path)
    metrics = made_up_run.evaluate_metrics()
    metrics["models"]["deploy"] |= {"f2": {"value": None}, "per_class": {"v1.5 a": {"f1": 0.7}}}
    inputs["scores"] = made_up_run.write_step(tmp_path / "other", "scores", "evaluate", metrics)
    made = read_made(inputs, made_up_run.recipe())
    figures = {step.name: step.metrics for step in made}
    for name, is_met in (("f2", False), ("per_class.v1.5 a.f1", True)):
        settings: dict[str, Any] = {"metric": f"scores.deploy.{name}", "at_least": 0.5}
        [shown] = gates(made, {"gates": [settings]})
        [outcome] = check_gates([RecipeGate(**settings)], figures, tmp_path)
        assert shown.is_met is outcome.passed is is_met
        assert (shown.shown == "without a value") is not is_met


def test_over_the_runs_of_a_sweep_the_mean_counts(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path)
    made = read_made(inputs, content)
    mean = 0.7391 + (0.0 + 0.006 - 0.004) / 3
    assert measured_value(made, "scores.deploy.accuracy") == pytest.approx(mean)
    assert measured_value(made, "scores.deploy@seed=1.accuracy") == pytest.approx(0.7451)


def test_one_point_is_a_point(tmp_path: Path) -> None:
    made = read_made(made_up_run.write_run(tmp_path), made_up_run.recipe())
    conditions = []
    for drop in (0.01, 0.004, 0.02):
        gate = {
            "metric": "scores.deploy.accuracy",
            "of": "scores.student.accuracy",
            "max_drop": drop,
        }
        conditions.append(gates(made, {"gates": [gate]})[0].condition.partition(" below ")[0])
    assert conditions == ["at most 1 point", "at most 0.4 points", "at most 2 points"]
