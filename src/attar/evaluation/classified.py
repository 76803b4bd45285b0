"""What an evaluation says of predicted classes beyond the data's metrics.

    per_class   precision, recall and F1 of each class, by its name
    confusion   rows of each class (in the order of the data's label_names) predicted as each
    confusions  the most frequent wrong pairs
    ece         the expected calibration error, and its bins (`calibration`)
    confident   how many rows a threshold on confidence lets through, and how many of them are right
    exact_match share of rows with just the right labels, where several may be right
    changed     rows that a model answers otherwise than the first one, the most confident first

A gate names these figures as `scores.deploy.per_class.urgent.recall` or
`scores.deploy.confident.90.accuracy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attar.data.tables import Split
from attar.numerics.classification import (
    above,
    calibration_bins,
    calibration_error,
    class_figures,
    confusion_matrix,
    figures_of_counts,
    softmax,
)

MOST_CLASSES = 30
"""Of a confusion matrix that is kept whole."""
MOST_CONFUSIONS = 20
MOST_CHARACTERS = 300
"""Of a text that is shown."""


@dataclass(frozen=True)
class Answers:
    """What one model answers to the rows of a split."""

    predictions: np.ndarray
    """(N,)."""
    confidence: np.ndarray
    """Probability of each prediction, (N,)."""

    @classmethod
    def of(cls, predictions: np.ndarray, logits: np.ndarray) -> Answers:
        """Of logits (N, C), classes in the data's order."""
        return cls(predictions, softmax(logits).max(axis=1))


def classified(
    answers: Mapping[str, Answers],
    split: Split,
    label_names: Sequence[str],
    thresholds: Sequence[float],
    changed_texts: int,
) -> dict[str, dict[str, Any]]:
    """Model → its figures; changes are against the first model.

    Args:
        changed_texts: rows of `changed` that are kept.
    """
    first, *others = answers
    found = {
        name: _figures(own, split.labels, label_names, thresholds) for name, own in answers.items()
    }
    for name in others:
        found[name]["changed"] = {
            "against": first,
            **_changed(answers[first], answers[name], split, label_names, changed_texts),
        }
    return found


def per_label(
    predictions: Mapping[str, np.ndarray], labels: np.ndarray, label_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Model → the figures of each label, where several may be right.

    Args:
        predictions: model → sets of labels as 0 and 1, (N, C).
    """
    found: dict[str, dict[str, Any]] = {}
    for name, given in predictions.items():
        right = ((given > 0) & (labels > 0)).sum(axis=0)
        figures = figures_of_counts(right, (labels > 0).sum(axis=0), (given > 0).sum(axis=0))
        named = zip(label_names, map(asdict, figures), strict=True)
        exact = float((given == labels).all(axis=1).mean())
        found[name] = {"per_class": dict(named), "exact_match": exact}
    return found


def _figures(
    answers: Answers, labels: np.ndarray, label_names: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    right = answers.predictions == labels
    confusion = confusion_matrix(labels, answers.predictions, len(label_names))
    bins = calibration_bins(answers.confidence, right)
    figures = zip(label_names, class_figures(confusion), strict=True)
    passed = above(answers.confidence, right, thresholds)
    found: dict[str, Any] = {
        "ece": calibration_error(bins),
        "calibration": [asdict(one) for one in bins],
        "per_class": {label: asdict(one) for label, one in figures},
        "confusions": _confusions(confusion, label_names),
        "confident": {f"{100 * one.threshold:g}": asdict(one) for one in passed},
    }
    return found if len(label_names) > MOST_CLASSES else {**found, "confusion": confusion.tolist()}


def _confusions(confusion: np.ndarray, label_names: Sequence[str]) -> list[dict[str, Any]]:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(label_names)) for place in order]
    return [
        {
            "label": label_names[label],
            "predicted": label_names[predicted],
            "rows": int(wrong[label, predicted]),
        }
        for label, predicted in pairs
        if wrong[label, predicted]
    ]


def _changed(
    before: Answers, after: Answers, split: Split, label_names: Sequence[str], most: int
) -> dict[str, Any]:
    rows = np.flatnonzero(before.predictions != after.predictions)
    surest = rows[np.argsort(-after.confidence[rows], kind="stable")][:most]
    return {
        "rows": len(rows),
        "texts": [
            {
                "row": row,
                "text": [part[:MOST_CHARACTERS] for part in split.texts[row]],
                "label": label_names[int(split.labels[row])],
                "from": label_names[int(before.predictions[row])],
                "to": label_names[int(after.predictions[row])],
                "confidence": float(after.confidence[row]),
            }
            for row in surest.tolist()
        ],
    }
