"""Candidates put into an order for each query, by the number that a model gives each of them.

predictions.parquet: row, query (its number), label, and for each model <name>.score
"""

from __future__ import annotations

import numpy as np

from attar.data.candidates import query_numbers
from attar.evaluation.compared import Compared, Judged
from attar.evaluation.predictions import logits_of_rows
from attar.numerics.ranking import order_scores


def judge_rankings(compared: Compared) -> Judged:
    """Score all candidates with each model, keep the scores, and measure the data's metrics: means
    over queries, whose intervals are drawn over queries.

    Raises:
        NonFiniteError: a model gives a score that is not finite.
    """
    data, split = compared.data, compared.split
    query_of = query_numbers(split.texts)
    logits = logits_of_rows(compared)
    scores = {f"{name}.score": values[:, 0].astype(np.float32) for name, values in logits.items()}
    rows = compared.numbers(len(split))
    compared.write({"row": rows, "query": query_of, "label": split.labels, **scores})
    found = {
        name: order_scores(values[:, 0], split.labels, query_of) for name, values in logits.items()
    }
    nothing = np.zeros(int(query_of.max()) + 1)
    return {
        metric: compared.bootstrap(
            metric, {name: each[metric] for name, each in found.items()}, nothing
        )
        for metric in data.metrics
    }, {}
