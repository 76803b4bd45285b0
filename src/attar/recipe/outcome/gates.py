"""Gates: conditions on metrics, checked after all steps have run and everything is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attar.artifacts import read_json, write_json
from attar.errors import ArtifactError, GateMissedError, RecipeError
from attar.recipe.checking.references import table_of
from attar.recipe.schema import Gate
from attar.report.sections.gates import keeps_limits, longest_name

GATES_FILE = "gates.json"


@dataclass(frozen=True)
class GateOutcome:
    """One gate with its measured value and limit."""

    metric: str
    value: float | None
    """None if it is undefined, such as the accuracy of no rows."""
    allowed: str
    """The condition in words: "at least 0.9"."""
    passed: bool

    @property
    def sentence(self) -> str:
        value = "has no value" if self.value is None else f"= {self.value:.6g}"
        return f"{self.metric} {value}, {'required:' if self.passed else 'must be'} {self.allowed}"


def check_gates(
    gates: Sequence[Gate], metrics: Mapping[str, Mapping[str, Any]], folder: Path
) -> list[GateOutcome]:
    """Check every gate and write `gates.json`.

    Raises:
        RecipeError: a path does not refer to a number; the message lists the existing ones.
    """
    if not gates:
        (folder / GATES_FILE).unlink(missing_ok=True)
        return []
    outcomes = [outcome for gate in gates for outcome in _outcomes(gate, metrics)]
    write_json(folder / GATES_FILE, [asdict(outcome) for outcome in outcomes])
    return outcomes


def require_gates(outcomes: Sequence[GateOutcome]) -> None:
    """Raise `GateMissedError` with the numbers if a gate is missed."""
    missed = [outcome.sentence for outcome in outcomes if not outcome.passed]
    if missed:
        raise GateMissedError(
            f"{len(missed)} of {len(outcomes)} gates missed, everything is saved: "
            f"{'; '.join(missed)}"
        )


def _outcomes(gate: Gate, metrics: Mapping[str, Mapping[str, Any]]) -> list[GateOutcome]:
    value = metric_at(gate.metric, metrics)
    measured = math.nan if value is None else value  # NaN fails every limit
    found: list[GateOutcome] = []
    if gate.at_least is not None:
        passed = keeps_limits(measured, at_least=gate.at_least)
        found.append(GateOutcome(gate.metric, value, f"at least {gate.at_least:g}", passed))
    if gate.at_most is not None:
        passed = keeps_limits(measured, at_most=gate.at_most)
        found.append(GateOutcome(gate.metric, value, f"at most {gate.at_most:g}", passed))
    if gate.of is not None and gate.max_drop is not None:
        other = metric_at(gate.of, metrics)
        reference = math.nan if other is None else other
        floor = reference - gate.max_drop
        allowed = f"at least {floor:.6g} ({gate.of} = {reference:.6g}, minus {gate.max_drop:g})"
        passed = keeps_limits(measured, reference=reference, max_drop=gate.max_drop)
        found.append(GateOutcome(gate.metric, value, allowed, passed))
    return found


def metric_at(path: str, metrics: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The number at a dotted path of a step and names within its metrics; None if undefined.

    `models` and a final `value` can be omitted. Names can contain dots: the longest match is used.

    Example:
        >>> scores = {"models": {"int8": {"accuracy": {"value": 0.9, "n": 100}}}}
        >>> metric_at("scores.int8.accuracy", {"scores": scores})
        0.9
    """
    here: Any = metrics
    parts = path.split(".")
    while parts:
        table = table_of(here)
        inside = {**table_of(table.get("models")), **table}
        name = longest_name(inside, parts)
        if name is None:
            known = ", ".join(table) or "nothing"
            raise RecipeError([f"metric {path!r}: no {parts[0]!r} here; found: {known}"], "gates")
        here, parts = inside[name], parts[name.count(".") + 1 :]
    here = table_of(here).get("value", here)
    if here is None:
        return None
    if isinstance(here, bool) or not isinstance(here, (int, float)):
        raise RecipeError([f"metric {path!r} must be a number, got {str(here)[:60]}"], "gates")
    return float(here)


def read_gates(folder: Path) -> list[GateOutcome]:
    """Read the outcomes of a run's gates; empty if it has none or did not get that far."""
    if not (folder / GATES_FILE).is_file():
        return []
    try:
        outcomes = [GateOutcome(**outcome) for outcome in read_json(folder / GATES_FILE)]
        for outcome in outcomes:
            _ = outcome.sentence, outcome.allowed.strip(), outcome.passed and True
    except (TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{folder / GATES_FILE} is not a gates file ({error}); remove it, and the next run "
            "writes it again"
        ) from None
    return outcomes
