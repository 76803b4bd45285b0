"""One decision about a gate: the page and the exit code agree, at a limit most of all."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.artifacts import Result
from attar.recipe.outcome.gates import check_gates
from attar.recipe.schema import Gate as RecipeGate
from attar.report.reading import Made
from attar.report.sections.gates import TOLERANCE, gates, keeps_limits

PERCENT = st.integers(1, 9_999).map(lambda value: value / 10_000)


def verdicts(value: float, reference: float, limits: dict[str, float]) -> tuple[bool, bool | None]:
    """What the engine and the page say of a metric of `value`."""
    models = {"small": {"accuracy": value}, "big": {"accuracy": reference}}
    gate = {"metric": "scores.small.accuracy", **limits}
    if "max_drop" in limits:
        gate["of"] = "scores.big.accuracy"
    metrics = {"scores": {"models": models}}
    with tempfile.TemporaryDirectory() as folder:
        engine = check_gates([RecipeGate.model_validate(gate)], metrics, Path(folder))
    made = Made("scores", Result("scores", "evaluate", "key", {}, 1.0, 1.0, metrics["scores"], {}))
    page = gates([made], {"gates": [gate]})[0]
    return engine[0].passed, page.is_met


@settings(max_examples=30, deadline=None)
@given(reference=PERCENT, drop=PERCENT)
def test_a_drop_just_as_large_as_allowed_is_met_on_the_page_and_by_the_exit_code(
    reference: float, drop: float
) -> None:
    allowed = {"max_drop": drop}
    assert verdicts(reference - drop, reference, allowed) == (True, True)
    measured = round(reference - drop, 4)
    assert verdicts(measured, reference, allowed) == (True, True)
    assert verdicts(measured - 1e-6, reference, allowed) == (False, False)


@settings(max_examples=30, deadline=None)
@given(limit=PERCENT)
def test_a_limit_that_is_reached_is_met_and_beyond_it_is_not(limit: float) -> None:
    for name, sign in (("at_least", 1), ("at_most", -1)):
        assert verdicts(limit, 1.0, {name: limit}) == (True, True)
        assert verdicts(limit - sign * TOLERANCE / 2, 1.0, {name: limit}) == (True, True)
        assert verdicts(limit - sign * TOLERANCE * 4, 1.0, {name: limit}) == (False, False)


def test_the_case_that_once_parted_them() -> None:
    assert verdicts(0.79, 0.80, {"max_drop": 0.01}) == (True, True)


@pytest.mark.parametrize("limits", [{"at_least": 0.0}, {"at_most": 1.0}])
def test_nan_keeps_no_limit(limits: dict[str, float]) -> None:
    assert not keeps_limits(float("nan"), **limits)


def test_the_decision_loads_nothing_heavy() -> None:
    code = "import attar.report.sections.gates, sys; print(sys.modules.keys() & set(sys.argv[1:]))"
    heavy = ("torch", "jinja2", "altair", "numpy")
    said = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True
    )
    assert said.stdout == "set()\n"
