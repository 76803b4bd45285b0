"""Evaluates classification, regression and ranking, and writes the predictions.

predictions.parquet: row, label, and for each model <name>.prediction and <name>.logits
                     (classes in the data's order, with names in the table's metadata; label sets
                     are lists of 0 and 1); for ranking: row, query (its number), label, and for
                     each model <name>.score
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
"""Always computed for classification, whatever the data's metrics are."""


def judge_rows(compared: Compared) -> Judged:
    """Run all models, save their predictions, and compute the data's metrics; for classification
    also the figures of `classified`."""
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
    """Model → logits of each row, (N, C), with columns in the data's order."""
    split, logits = compared.split, dict[str, np.ndarray]()
    with compared.progress("rows", len(compared.forms) * len(split)) as after_batch:
        for name in compared.forms:
            own_order = compared.scores(
                name, compared.encode(name), lambda rows, name=name: after_batch(rows, name)
            )
            logits[name] = own_order[:, compared.columns[name]]
    return logits


def judge_rankings(compared: Compared) -> Judged:
    """Score all candidates with each model, save the scores, and compute the data's metrics. They
    are means over the queries that have a relevant candidate; intervals resample these queries.

    Raises:
        DataError: no query has a relevant candidate.
        NonFiniteError: a model gives a NaN or infinite score.
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
    """Multi-label only: the logit threshold of each label, in the data's order."""
    task = compared.forms[name].task
    return np.array(task.cuts)[compared.columns[name]] if task.kind.gives_sets else 0.0


def _write(
    compared: Compared, predictions: dict[str, np.ndarray], logits: dict[str, np.ndarray]
) -> None:
    """Write one row per row of the split, in order. Classes are numbers, with names in the
    metadata."""
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
    """A column of a table; rows with several values become lists."""
    import pyarrow as pa

    if values.ndim == 1:
        return values
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
