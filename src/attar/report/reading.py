"""Reads the published artifacts of the other steps into plain records for the report.

The report loads no model and measures nothing. All of its data is from `result.json`,
`history.jsonl`, a model folder's `config.json` and the recipe, so the page can be rebuilt from the
folders alone.

Left out: weights and predictions, because the metrics contain the relevant information.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

from attar.artifacts import Result, read_json, read_result
from attar.errors import ArtifactError
from attar.models.structure.families import blocks_of

Found = TypeVar("Found")
VARIANT_MARK = "@"
"""A step multiplied by a sweep is named `student@seed=0`: the step's name in the recipe, the mark,
the varied setting."""


@dataclass(frozen=True)
class Made:
    """One published step."""

    name: str
    result: Result
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The step's table in the recipe; empty when the recipe is not known."""
    history: tuple[Mapping[str, Any], ...] = ()
    """Lines of history.jsonl, for a training step."""
    blocks: int | None = None
    """Transformer blocks of the model in the folder, where it says so."""
    study: Mapping[str, Any] = field(default_factory=dict)
    """study.json of an analyze step."""
    explored: Mapping[str, Any] = field(default_factory=dict)
    """explored.json of a select step."""
    extrapolated: Mapping[str, Any] = field(default_factory=dict)
    """extrapolation.json of an extrapolate step."""

    @property
    def run(self) -> str:
        return self.result.run

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.result.metrics

    @property
    def parent(self) -> str | None:
        """The word of the model this step started from: a step's name, a demo model, a folder, a
        hub id."""
        model = self.settings.get("model")
        if isinstance(model, Mapping):
            model = model.get("from", model.get("source"))
        return model if isinstance(model, str) else None


def base_name(name: str) -> str:
    """The step's name in the recipe, without what a sweep appended.

    Example:
        >>> base_name("student@seed=0"), base_name("teacher")
        ('student', 'teacher')
    """
    return name.partition(VARIANT_MARK)[0]


def variant_of(name: str) -> str:
    """The varied settings of a sweep; "" for a step without copies.

    Example:
        >>> variant_of("student@seed=0")
        'seed=0'
    """
    return name.partition(VARIANT_MARK)[2]


def read_made(inputs: Mapping[str, Path], recipe: Mapping[str, Any]) -> tuple[Made, ...]:
    """Every artifact the report was given, in the recipe's order.

    Raises:
        ArtifactError: a result or a history is missing or damaged; the message names the file.
    """
    steps: Mapping[str, Any] = recipe.get("steps") or {}
    order = {name: place for place, name in enumerate(steps)}
    last = len(order)
    names = sorted(
        inputs, key=lambda name: (order.get(name, order.get(base_name(name), last)), name)
    )
    return tuple(_read_one(name, inputs[name], steps) for name in names)


def _read_one(name: str, folder: Path, steps: Mapping[str, Any]) -> Made:
    settings = steps.get(name, steps.get(base_name(name), {}))
    return Made(
        name=name,
        result=read_result(folder),
        settings=settings,
        history=_read_history(folder / "history.jsonl"),
        blocks=_read_blocks(folder),
        study=_read_table(folder / "study.json"),
        explored=_read_table(folder / "explored.json"),
        extrapolated=_read_table(folder / "extrapolation.json"),
    )


def _read_table(file: Path) -> Mapping[str, Any]:
    return table(read_json(file)) if file.is_file() else {}


def _read_history(file: Path) -> tuple[Mapping[str, Any], ...]:
    if not file.is_file():
        return ()
    lines: list[Mapping[str, Any]] = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ArtifactError(
                f"{file} line {number} is not JSON ({error}); remove {file.parent} and run again"
            ) from error
    return tuple(lines)


def _read_blocks(folder: Path) -> int | None:
    for file in (folder / "model" / "config.json", folder / "config.json"):
        if file.is_file():
            config = table(read_json(file))
            return next(iter(blocks_of(config).values()), None)
    return None


def without_a_twin(metrics: Mapping[str, Found]) -> dict[str, Found]:
    """Figures or curves of validation; the loss only where it is not the nll itself.

    Example:
        >>> without_a_twin({"nll": 6.1, "loss": 6.1}), without_a_twin({"nll": 6.1, "loss": 7.0})
        ({'nll': 6.1}, {'nll': 6.1, 'loss': 7.0})
    """
    is_twin = "nll" in metrics and metrics.get("loss") == metrics["nll"]
    return {name: found for name, found in metrics.items() if not (is_twin and name == "loss")}


def number(content: Any) -> float | None:
    """A finite number, or None. Missing values are left out and not shown as 0.

    Example:
        >>> number(3), number("3"), number(float("nan")), number(True)
        (3.0, None, None, None)
    """
    if isinstance(content, bool) or not isinstance(content, int | float):
        return None
    return float(content) if math.isfinite(content) else None


def whole(content: Any) -> int | None:
    """A finite number without its fraction, or None."""
    found = number(content)
    return None if found is None else int(found)


def ends_of(interval: Any) -> tuple[float | None, float | None]:
    """Both ends of an interval, each as `number` has it."""
    pair = interval if isinstance(interval, list | tuple) and len(interval) == 2 else (None, None)
    return number(pair[0]), number(pair[1])


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def numbers(content: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Some figures of a table by their names, each as `number` has it."""
    return {name: number(content.get(name)) for name in names}


def table(content: Any) -> Mapping[str, Any]:
    """The mapping itself, or an empty one if it is missing."""
    return content if isinstance(content, Mapping) else {}


def tables(content: Any) -> list[Mapping[str, Any]]:
    """A list of mappings, or an empty one if it is missing."""
    return [table(each) for each in content] if isinstance(content, list) else []
