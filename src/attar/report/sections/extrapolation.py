"""Power laws fitted to the losses of training runs: constants and extrapolated losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import MINUS, count_text, metric_text, number_text, text_with_interval
from attar.report.reading import Made, number, table

LOSS = "nll"


@dataclass(frozen=True)
class Band:
    """The law at one budget, with its 95 % interval."""

    tokens: float
    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        return text_with_interval(LOSS, self.value, self.low, self.high)


@dataclass(frozen=True)
class Law:
    name: str
    points: tuple[tuple[float, float], ...]
    """(tokens, loss) of each evaluation that was fitted."""
    curve: tuple[Band, ...]
    constants: tuple[str, ...]
    """A, α, L∞, formatted."""
    residual: str
    read_offs: tuple[Band, ...]


@dataclass(frozen=True)
class Extrapolation:
    name: str
    laws: tuple[Law, ...]
    budgets: tuple[str, ...]
    """Budgets of the extrapolation."""
    notes: tuple[str, ...]


def extrapolations(made: Sequence[Made]) -> tuple[Extrapolation, ...]:
    return tuple(_extrapolation(step) for step in made if step.run == "extrapolate")


def _extrapolation(step: Made) -> Extrapolation:
    models = table(step.metrics.get("models"))
    laws = tuple(
        _law(name, table(found), table(step.extrapolated.get(name)))
        for name, found in models.items()
    )
    first = table(next(iter(models.values()), {}))
    tokens = (count_text(each["tokens"]) + " tokens" for each in first.get("read_offs", ()))
    equal = (
        f"{each['times']:g} × the FLOPs of {first['runs'][0]}"
        for each in first.get("at_budgets", ())
    )
    return Extrapolation(
        name=step.name,
        laws=laws,
        budgets=(*tokens, *equal),
        notes=tuple(
            f"{name}: {note}" for name, found in models.items() for note in found.get("notes", ())
        ),
    )


def _law(name: str, found: Mapping[str, Any], drawn: Mapping[str, Any]) -> Law:
    points = ((number(x), number(y)) for x, y in drawn.get("points", ()))
    return Law(
        name=name,
        points=tuple((x, y) for x, y in points if x is not None and y is not None),
        curve=tuple(_bands(drawn.get("curve", ()))),
        constants=(
            _constant(table(found.get("A")), scientific),
            _constant(table(found.get("alpha")), number_text),
            _constant(table(found.get("floor")), lambda value: metric_text(LOSS, value))
            if found.get("floor_identified")
            else "not identified",
        ),
        residual=number_text(number(found.get("rms")), 2),
        read_offs=tuple(_bands([*found.get("read_offs", ()), *found.get("at_budgets", ())])),
    )


def _bands(lines: Sequence[Mapping[str, Any]]) -> Iterator[Band]:
    for line in lines:
        found = [number(line.get(name)) for name in ("tokens", "value", "low", "high")]
        if None not in found:
            yield Band(*(value for value in found if value is not None))


def _constant(found: Mapping[str, Any], text: Any) -> str:
    value, low, high = (text(number(found.get(name))) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def scientific(value: float | None) -> str:
    """Format a number of any magnitude.

    Example:
        >>> scientific(21_900_000.0), scientific(0.25)
        ('2.19e7', '0.25')
    """
    if value is None or 1e-3 <= abs(value) < 1e4 or value == 0:
        return number_text(value)
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits}e{int(power)}".replace("-", MINUS)
