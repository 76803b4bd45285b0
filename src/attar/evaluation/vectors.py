"""Evaluates embedding models on pairs of texts: correlation with the rows' scores, or retrieval.

predictions.parquet: row, label, and for each model <name>.cosine of the row's two texts
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attar.errors import DataError, UsageError
from attar.evaluation.compared import Compared, Judged, Metrics
from attar.numerics.metric_names import SCORES
from attar.scoring.vectors import TextPairs, Vectors, unit_length, vector_agreement

MOST_COMPARED = 2000
"""Maximum number of texts whose nearest neighbours are compared."""


def judge_vectors(compared: Compared) -> Judged:
    """Embed every distinct text once with each model, save the cosines, and compute the data's
    metrics; for every model after the first, also the similarity of its vectors to the first's.

    Raises:
        NonFiniteError: a vector contains NaN or infinity.
        DataError: a metric needs scores, and rows have none.
        UsageError: a width exceeds the dimension of a model's vectors.
    """
    data, split = compared.data, compared.split
    if data.metrics[0] in SCORES and not split.is_labelled:
        raise DataError(
            f"data {data.name!r} is measured by {data.metrics[0]}, and {split.num_unlabelled:,} of "
            f"{len(split):,} rows of split {compared.config.split!r} have no score; choose another "
            "split, or name the column of the scores with label ="
        )
    pairs = TextPairs.of(split.texts)
    vectors = _vectors(compared, pairs)
    _require_widths(compared.config.widths, vectors)
    columns = {f"{name}.cosine": pairs.cosines(found) for name, found in vectors.items()}
    compared.write(
        {
            "row": compared.numbers(len(split)),
            "label": split.labels,
            **{name: values.astype(np.float32) for name, values in columns.items()},
        }
    )
    metrics = _metrics(compared, pairs, vectors)
    facts: dict[str, dict[str, Any]] = {name: {} for name in vectors}
    first, *others = vectors
    for name in others:
        ours, theirs = (vectors[model][:MOST_COMPARED] for model in (name, first))
        facts[name]["agreement"] = vector_agreement(ours, theirs).as_json()
    for width in compared.config.widths:
        cut = {name: unit_length(found, width) for name, found in vectors.items()}
        for metric, values in _metrics(compared, pairs, cut).items():
            for name, one in values.items():
                facts[name].setdefault("widths", {}).setdefault(str(width), {})[metric] = one.value
    return metrics, facts


def _require_widths(widths: Sequence[int], vectors: dict[str, Vectors]) -> None:
    for name, found in vectors.items():
        if widths and max(widths) > found.shape[1]:
            raise UsageError(
                f"widths has {max(widths)}, and the vectors of model {name!r} have "
                f"{found.shape[1]} numbers; lower it"
            )


def _metrics(compared: Compared, pairs: TextPairs, vectors: dict[str, Vectors]) -> Metrics:
    metrics, labels = compared.data.metrics, compared.split.labels
    answers = {name: pairs.answers(metrics, each, labels) for name, each in vectors.items()}
    wanted = next(iter(answers.values()))
    return {
        metric: compared.bootstrap(
            metric, {name: each[metric][0] for name, each in answers.items()}, wanted[metric][1]
        )
        for metric in metrics
    }


def _vectors(compared: Compared, pairs: TextPairs) -> dict[str, Vectors]:
    """Model → vectors of all queries, followed by those of all passages."""
    total = len(compared.forms) * (len(pairs.queries) + len(pairs.passages))
    found: dict[str, Vectors] = {}
    with compared.progress("texts", total) as after_batch:
        for name, form in compared.forms.items():
            assert form.task.embedding is not None
            encoded = form.encoder.encode(pairs.read_by(form.task.embedding))
            compared.warn_of_cut(name, encoded)
            found[name] = compared.scores(
                name, encoded, lambda rows, name=name: after_batch(rows, name)
            )
    return found
