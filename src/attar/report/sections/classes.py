"""Per-class results of an evaluation: precision and recall, confusions, calibration, and changed
predictions.

Tables have one column per model. Confusion matrix, calibration and changed texts are shown for one
model only: the last one in a deployment runtime, or else the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import metric_text
from attar.report.reading import Made, base_name, number, table, tables
from attar.report.sections.measured import DEPLOYED

MOST_CLASSES = 30
"""Maximum number of rows of the table of classes; the worst are shown."""


@dataclass(frozen=True)
class ClassRow:
    name: str
    rows: int
    scores: tuple[tuple[str, str], ...]
    """Per model: F1, and precision and recall."""


@dataclass(frozen=True)
class Changed:
    """A text whose prediction by the shown model differs from the first model's."""

    text: str
    label: str
    before: str
    after: str
    confidence: str
    verdict: str
    """Whether the first or the new prediction is correct."""


@dataclass(frozen=True)
class Classes:
    step: str
    models: tuple[str, ...]
    shown: str
    """The model that is shown."""
    rows: tuple[ClassRow, ...]
    left_out: int
    """Number of classes that are not in the table."""
    names: tuple[str, ...]
    """Class names of the confusion matrix."""
    confusion: tuple[tuple[int, ...], ...]
    """Confusion matrix, rows are labels; empty if there are too many classes."""
    confusions: tuple[tuple[str, str, int], ...]
    """The most frequent confusions: label, prediction, rows."""
    errors: tuple[str, ...]
    """Expected calibration error per model."""
    confident: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """Threshold → accuracy and coverage per model."""
    bins: tuple[tuple[str, int, str, str], ...]
    """Confidence bins: range, rows, mean confidence, accuracy."""
    against: str
    num_changed: int
    changed: tuple[Changed, ...]


def classes_of(made: Sequence[Made]) -> tuple[Classes, ...]:
    """Every evaluation with classes; for a sweep, its first run."""
    found: dict[str, Classes] = {}
    for step in made:
        models = table(step.metrics.get("models")) if step.run == "evaluate" else {}
        judged = {name: table(each) for name, each in models.items() if "per_class" in table(each)}
        if judged and base_name(step.name) not in found:
            found[base_name(step.name)] = _classes(step, judged)
    return tuple(found.values())


def _classes(step: Made, models: Mapping[str, Mapping[str, Any]]) -> Classes:
    deployed = [name for name, figures in models.items() if figures.get("form") in DEPLOYED]
    shown = [*models, *deployed][-1]
    own, changed = models[shown], table(models[shown].get("changed"))
    names = tuple(table(own.get("per_class")))
    rows = sorted(names, key=lambda name: _figure(own, name, "f1"))
    return Classes(
        step=step.name,
        models=tuple(models),
        shown=shown,
        rows=tuple(_row(name, models) for name in rows[:MOST_CLASSES]),
        left_out=max(len(rows) - MOST_CLASSES, 0),
        names=names,
        confusion=tuple(tuple(map(int, line)) for line in own.get("confusion") or ()),
        confusions=tuple(
            (str(pair["label"]), str(pair["predicted"]), int(pair["rows"]))
            for pair in tables(own.get("confusions"))
        ),
        errors=tuple(_share(figures.get("ece")) for figures in models.values()),
        confident=tuple(
            (f"{threshold} %", tuple(_above(figures, threshold) for figures in models.values()))
            for threshold in table(own.get("confident"))
        ),
        bins=tuple(map(_bin, tables(own.get("calibration")))),
        against=str(changed.get("against", "")),
        num_changed=int(number(changed.get("rows")) or 0),
        changed=tuple(map(_changed, tables(changed.get("texts")))),
    )


def _figure(model: Mapping[str, Any], name: str, figure: str) -> float:
    return number(table(table(model.get("per_class")).get(name)).get(figure)) or 0.0


def _share(value: Any) -> str:
    return metric_text("accuracy", number(value))


def _row(name: str, models: Mapping[str, Mapping[str, Any]]) -> ClassRow:
    scores = [
        (
            _share(_figure(figures, name, "f1")),
            f"{_share(_figure(figures, name, 'precision'))} / "
            f"{_share(_figure(figures, name, 'recall'))}",
        )
        for figures in models.values()
    ]
    first = next(iter(models.values()))
    return ClassRow(name, int(_figure(first, name, "rows")), tuple(scores))


def _above(figures: Mapping[str, Any], threshold: str) -> tuple[str, str]:
    found = table(table(figures.get("confident")).get(threshold))
    return _share(found.get("accuracy")), _share(found.get("coverage"))


def _bin(content: Mapping[str, Any]) -> tuple[str, int, str, str]:
    ends = f"{_share(content.get('low'))} to {_share(content.get('high'))}"
    rows = int(number(content.get("rows")) or 0)
    return ends, rows, _share(content.get("confidence")), _share(content.get("accuracy"))


def _changed(content: Mapping[str, Any]) -> Changed:
    texts = content.get("text")
    label, before, after = (str(content.get(name, "")) for name in ("label", "from", "to"))
    return Changed(
        text=" | ".join(map(str, texts)) if isinstance(texts, list) else str(texts),
        label=label,
        before=before,
        after=after,
        confidence=_share(content.get("confidence")),
        verdict="now right" if after == label else "now wrong" if before == label else "both wrong",
    )
