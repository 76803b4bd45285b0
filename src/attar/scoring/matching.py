"""Make a model's outputs comparable with the labels of a data set.

The problem: logit 0 belongs to the model's class 0, and the data may number their classes
differently. With a model trained on (negative, positive) and data read as (positive, negative), the
accuracy would be 1 − a, without an error. The idea: classes are matched by *name*, before anything
is computed, and a model whose names cannot be matched is rejected. Names match by the same rules as
for heads and teachers (`tasks.labels`), so every model that can be trained can be evaluated.

    column of the logits for the data's class i = position of label_names[i] in the model's names

Names are never guessed ("pos" for "positive"), because a wrong guess would swap classes again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from attar.data.tables import Split, TextData
from attar.errors import DataError, ModelError, did_you_mean
from attar.numerics.metrics import METRICS_OF_COUNTS, predicted_classes, require_finite
from attar.tasks.labels import match_classes, why_not_matched
from attar.tasks.task import Task

MISMATCHED = ("validation_mismatched", "test_mismatched")


def labelled_split(data: TextData, name: str) -> Split:
    """A split with at least one row, in which every row has a label (except for running text).

    Raises:
        DataError: there is no such split, it is empty, or rows have no label; states the numbers.
    """
    if name in MISMATCHED and name not in data.splits:
        rows = ", ".join(f"{key} ({len(value):,} rows)" for key, value in data.splits.items())
        raise DataError(
            f"data {data.name!r} has no split {name!r}, which only MNLI has; its splits: {rows}; "
            f"remove split, or name the GLUE task mnli, with {name}.jsonl.gz in its folder"
        )
    split = data.split(name)
    if len(split) == 0:
        rows = ", ".join(f"{key} {len(value):,}" for key, value in data.splits.items())
        raise DataError(
            f"split {name!r} of data {data.name!r} has 0 rows, and a metric needs at least 1 (rows "
            f"by split: {rows}; set aside: {len(data.set_aside):,}); choose another split or data"
        )
    if data.kind.has_gold and not split.is_labelled:
        missing = split.num_unlabelled
        raise DataError(
            f"split {name!r} of data {data.name!r} has no label in {missing:,} of {len(split):,} "
            "rows, and a metric needs all of them; choose another split (GLUE's test labels are "
            "hidden) or name the right label column"
        )
    return split


def known_metrics(data: TextData) -> tuple[str, ...]:
    """The data's metrics, after checking that all are known.

    Raises:
        DataError: an unknown metric, or no metric at all.
    """
    unknown = [name for name in data.metrics if name not in METRICS_OF_COUNTS]
    if unknown or not data.metrics:
        hint = did_you_mean(unknown[0], list(METRICS_OF_COUNTS)) if unknown else ""
        raise DataError(
            f"data {data.name!r} asks for the metrics {list(data.metrics)}{hint}; known are "
            f"{list(METRICS_OF_COUNTS)}"
        )
    return data.metrics


def output_columns(
    model: str, task: Task, data: TextData, warn: Callable[[str], None]
) -> np.ndarray:
    """The columns of the model's logits for the data's classes, in the data's order.

    Args:
        model: its name, for messages.
        warn: called if class names are spelled differently.

    Returns:
        int64 (C,); for regression the single column, or none if the model writes numbers as text.

    Raises:
        ModelError: another objective, another number of texts per row, or class names that do not
            match.
    """
    # a cross-encoder trained elsewhere is recognized by its head with one output
    ranks = data.kind.ranks and task.kind.is_score
    if task.objective != data.objective and not ranks:
        raise ModelError(
            f"model {model!r} was made for {task.objective}, data {data.name!r} are for "
            f"{data.objective}; evaluate it on data of its own kind"
        )
    if task.num_texts not in (None, data.num_texts):
        raise ModelError(
            f"model {model!r} reads {task.num_texts} texts per row, data {data.name!r} has "
            f"{data.num_texts}; name the columns it was trained on with text ="
        )
    if not data.label_names:
        return np.zeros(1, dtype=np.int64)
    match = match_classes(task.label_names, data.label_names)
    if match is None:
        why = why_not_matched(task.label_names, data.label_names, "the model's config.json")
        raise ModelError(
            f"the classes of model {model!r} and data {data.name!r} cannot be matched by name: "
            + why
        )
    if match.respelled:
        warn(f"model {model!r}, data {data.name!r}: of its classes {match.said}")
    return np.array(match.order, dtype=np.int64)


def predictions_from(
    scores: np.ndarray, model: str, labels: np.ndarray, cuts: ArrayLike = 0.0
) -> np.ndarray:
    """Predictions in the form of the labels: classes (N,) int64, the first one on ties; numbers
    (N,) float64; or sets of labels as 0 and 1, (N, C) int8.

    Args:
        scores: (N, C), columns in the data's order.
        model: its name, for messages.
        cuts: for sets: the score threshold of each label (`Task.cuts`), in the data's order.

    Raises:
        NonFiniteError: a score of a class is NaN or infinite.
    """
    if labels.ndim == 2:
        require_finite(scores, model)
        return (scores >= np.asarray(cuts)).astype(np.int8)
    if labels.dtype.kind == "f":
        return scores[:, 0].astype(np.float64)
    return predicted_classes(scores, model)
