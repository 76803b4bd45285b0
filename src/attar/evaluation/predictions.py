"""A class, a number or a score among candidates for each row, and the table it is kept in.

predictions.parquet: row, label, and for each model <name>.prediction and <name>.logits
                     (classes in the data's order, whose names are in the table's metadata;
                     sets of labels are lists of 0 and 1); of candidates row, query (its number),
                     label, and for each model <name>.score
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from attar.data.candidates import query_numbers
from attar.evaluation.classified import Answers, classified, per_label
from attar.evaluation.compared import Compared, Judged
from attar.numerics.ranking import order_scores
from attar.scoring.matching import predictions_from

MACRO = "macro_f1"
"""Measured of all classes, whatever metrics the data has."""


def judge_rows(compared: Compared) -> Judged:
    """Score all models, keep their predictions, and measure the data's metrics; of classes also
    the figures of `classified`.

    Raises:
        NonFiniteError: a model gives NaN or infinite logits.
    """
    data, split = compared.data, compared.split
    logits = logits_of_rows(compared)
    predictions = {
        name: predictions_from(values, f"model {name!r}", split.labels, _cuts(compared, name))
        for name, values in logits.items()
    }
    _write(compared, predictions, logits)
    names = dict.fromkeys([*data.metrics, *((MACRO,) if data.kind.has_classes else ())])
    metrics = {m: compared.bootstrap(m, predictions, split.labels) for m in names}
    if data.kind.gives_sets:
        return metrics, per_label(predictions, split.labels, data.label_names)
    if not data.kind.has_classes:
        return metrics, {}
    answers = {name: Answers.of(predictions[name], values) for name, values in logits.items()}
    config = compared.config
    facts = classified(answers, split, data.label_names, config.thresholds, config.changed_texts)
    return metrics, facts


def logits_of_rows(compared: Compared) -> dict[str, np.ndarray]:
    """Model → what it gives for each row, (N, C), columns in the data's order.

    Raises:
        NonFiniteError: a model gives NaN or infinite logits.
    """
    split, logits = compared.split, dict[str, np.ndarray]()
    with compared.progress("rows", len(compared.forms) * len(split)) as after_batch:
        for name in compared.forms:
            own_order = compared.scores(
                name, compared.encode(name), lambda rows, name=name: after_batch(rows, name)
            )
            logits[name] = own_order[:, compared.columns[name]]
    return logits


def judge_rankings(compared: Compared) -> Judged:
    """Score all candidates with each model, keep the scores, and measure the data's metrics: means
    over queries with a right candidate, whose intervals are drawn over these.

    Raises:
        DataError: no query has a right candidate.
        NonFiniteError: a model gives a score that is not finite.
    """
    split = compared.split
    query_of = query_numbers(split.texts)
    scores = {name: values[:, 0] for name, values in logits_of_rows(compared).items()}
    columns = {f"{name}.score": values.astype(np.float32) for name, values in scores.items()}
    rows = compared.numbers(len(split))
    compared.write({"row": rows, "query": query_of, "label": split.labels, **columns})
    found = {name: order_scores(own, split.labels, query_of) for name, own in scores.items()}
    queries, judged = (
        int(query_of.max()) + 1,
        len(next(iter(found.values()))[compared.data.metrics[0]]),
    )
    if judged < queries:
        compared.context.progress.warn(
            f"{queries - judged:,} of {queries:,} queries of data {compared.data.name!r} have no "
            "right candidate (a label above 0) and are left out of the ranking metrics"
        )
    return compared.means(found), {}


def _cuts(compared: Compared, name: str) -> ArrayLike:
    """Where several labels may be right: the logit from which the model gives each of them, in the
    data's order."""
    task = compared.forms[name].task
    return np.array(task.cuts)[compared.columns[name]] if task.kind.gives_sets else 0.0


def _write(
    compared: Compared, predictions: dict[str, np.ndarray], logits: dict[str, np.ndarray]
) -> None:
    """One row a row of the split, in its order. Classes as numbers, named in the metadata."""
    data, split = compared.data, compared.split
    columns: dict[str, Any] = {
        "row": compared.numbers(len(split)),
        "label": _column(split.labels),
    }
    for name, predicted in predictions.items():
        narrow = np.int32 if data.kind.has_classes else np.float32
        columns[f"{name}.prediction"] = _column(predicted.astype(narrow))
        columns[f"{name}.logits"] = _column(logits[name].astype(np.float32))
    compared.write(columns, label_names=json.dumps(data.label_names, ensure_ascii=False))


def _column(values: np.ndarray) -> Any:
    """A column of a table; of several figures a row, as lists."""
    import pyarrow as pa

    if values.ndim == 1:
        return values
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
