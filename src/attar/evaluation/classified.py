"""Classification figures in addition to the data's metrics.

    per_class   precision, recall and F1 of each class, by name
    confusion   confusion matrix, in the order of the data's label_names
    confusions  the most frequent confusions
    ece         expected calibration error, with its bins (`calibration`)
    confident   coverage and accuracy at each confidence threshold
    exact_match multi-label only: share of rows whose label set is predicted exactly
    changed     rows whose prediction differs from the first model's, most confident first

Gates refer to these figures as, for example, `scores.deploy.per_class.urgent.recall` or
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
"""Maximum number of classes for a full confusion matrix."""
MOST_CONFUSIONS = 20
MOST_CHARACTERS = 300
"""Maximum length of a text that is shown."""


@dataclass(frozen=True)
class Answers:
    """Predictions of one model for the rows of a split."""

    predictions: np.ndarray
    """Predicted class of each row, (N,)."""
    confidence: np.ndarray
    """Probability of each prediction, (N,)."""

    @classmethod
    def of(cls, predictions: np.ndarray, logits: np.ndarray) -> Answers:
        """Take the confidence from logits (N, C), with classes in the data's order."""
        return cls(predictions, softmax(logits).max(axis=1))


def classified(
    answers: Mapping[str, Answers],
    split: Split,
    label_names: Sequence[str],
    thresholds: Sequence[float],
    changed_texts: int,
) -> dict[str, dict[str, Any]]:
    """Model → classification figures; `changed` is relative to the first model.

    Args:
        changed_texts: maximum number of rows in `changed`.
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
    """Model → figures of each label, for multi-label classification.

    Args:
        predictions: model → label sets as 0 and 1, (N, C).
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
