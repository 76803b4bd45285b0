"""Gates: which number a path leads to, and what it is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from attar.errors import GateMissedError, RecipeError
from attar.numerics.metric_names import LOWER_IS_BETTER
from attar.recipe.outcome.gates import check_gates, metric_at, read_gates, require_gates
from attar.recipe.schema import Gate

METRICS = {
    "scores": {
        "models": {
            "student": {"accuracy": {"value": 0.90, "n": 100}, "latency_ms": {"p50": 3.0}},
            "int8": {"accuracy": {"value": 0.89, "n": 100}, "size_mib": 22},
            "v1.5": {
                "confident": {"99.5": {"rows": 7}, "99.9": {"rows": 0, "accuracy": None}},
                "per_class": {"a": {"f1": 0.2}, "a.b": {"f1": 0.4}},
            },
        }
    },
    "int8": {"mean_sqnr_db": 31.5, "method": "minmax", "is_symmetric": True},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("scores.int8.accuracy", 0.89),
        ("scores.models.int8.accuracy.value", 0.89),
        ("scores.int8.accuracy.n", 100),
        ("scores.student.latency_ms.p50", 3.0),
        ("scores.int8.size_mib", 22),
        ("int8.mean_sqnr_db", 31.5),
        ("scores.v1.5.confident.99.5.rows", 7),
        ("scores.v1.5.per_class.a.f1", 0.2),
        ("scores.v1.5.per_class.a.b.f1", 0.4),
    ],
)
def test_a_path_leads_to_its_number(path: str, value: float) -> None:
    assert metric_at(path, METRICS) == value


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("scores.int4.accuracy", "no 'int4' here; found: models"),
        ("scores.int8.acuracy", "no 'acuracy' here; found: accuracy, size_mib"),
        ("int8.method", "must be a number, got minmax"),
        ("scores.int8", "must be a number"),
        ("int8.is_symmetric", "must be a number, got True"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(path: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        metric_at(path, METRICS)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"at_least": 0.89}, True),
        ({"at_least": 0.8901}, False),
        ({"at_most": 0.89}, True),
        ({"at_most": 0.8899}, False),
        ({"of": "scores.student.accuracy", "max_drop": 0.011}, True),
        ({"of": "scores.student.accuracy", "max_drop": 0.009}, False),
        ({"of": "scores.student.accuracy", "max_drop": 0.01}, True),
        ({"of": "scores.student.accuracy", "max_drop": 0}, False),
        ({"of": "scores.int8.accuracy", "max_drop": 0}, True),
        ({"at_least": 0.001}, True),
        ({"at_most": 0}, False),
    ],
)
def test_a_gate_passes_at_its_limit_and_not_beyond(
    tmp_path: Path, settings: dict[str, object], passes: bool
) -> None:
    gate = Gate.model_validate({"metric": "scores.int8.accuracy", **settings})
    outcomes = check_gates([gate], METRICS, tmp_path)
    assert [outcome.passed for outcome in outcomes] == [passes]
    assert read_gates(tmp_path) == outcomes


def test_a_missed_gate_tells_the_numbers(tmp_path: Path) -> None:
    gate = Gate(
        metric="scores.int8.accuracy", at_least=0.8, of="scores.student.accuracy", max_drop=0.001
    )
    with pytest.raises(GateMissedError) as caught:
        require_gates(check_gates([gate], METRICS, tmp_path))
    assert str(caught.value) == (
        "1 of 2 gates missed, everything is saved: scores.int8.accuracy = 0.89, must be at least "
        "0.899 (scores.student.accuracy = 0.9, minus 0.001)"
    )


def test_what_could_not_be_measured_misses_its_gate(tmp_path: Path) -> None:
    gate = Gate(metric="scores.v1.5.confident.99.9.accuracy", at_least=0.9)
    outcomes = check_gates([gate], METRICS, tmp_path)
    assert read_gates(tmp_path) == outcomes
    with pytest.raises(GateMissedError, match=r"accuracy has no value, must be at least 0\.9"):
        require_gates(outcomes)


@pytest.mark.parametrize("metric", sorted(LOWER_IS_BETTER))
def test_a_drop_is_no_promise_about_what_is_better_the_lower_it_is(metric: str) -> None:
    place = f"scores.student.{metric}"
    with pytest.raises(ValueError, match=f"{metric} is better the lower it is.*set at_most"):
        Gate(metric=place, of=f"scores.teacher.{metric}", max_drop=0.1)
    assert Gate(metric=place, at_most=0.5).at_most == 0.5


@pytest.mark.parametrize(
    ("metric", "limit"), [("ndcg@10", {"at_least": 0}), ("ece", {"at_most": 1})]
)
def test_a_limit_at_the_end_of_the_range_cannot_be_missed(
    metric: str, limit: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=f"cannot be missed: {metric} lies between 0 and 1"):
        Gate(metric=f"scores.student.{metric}", **limit)
