"""Retrieval metrics: recall, reciprocal rank and nDCG at a cut-off k.

    rank of a candidate  = its position when sorted by score                 1 is the best
    recall@k             = relevant candidates of rank ≤ k / relevant candidates
    mrr@k                = 1 / the best rank of a relevant candidate; 0 beyond k
    ndcg@k               = Σ_{rank ≤ k} gain / log₂(1 + rank)  /  the same of the ideal order

Each metric has a value per query, 0..1. The mean over queries is reported, with intervals over
queries. Ties count against the model: equal scores are sorted in the worst order, so that a model
that gives all candidates the same score finds nothing, whatever the order of the file.

Source: Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", with
linear gains as in trec_eval. Q queries, P candidates, M relevant (query, candidate) pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attar.errors import DataError
from attar.numerics.metric_names import RANKING

Floats = NDArray[np.float64]
QUERIES_AT_ONCE = 256
"""Number of rows of scores in memory."""
DECIMALS = 6
"""Decimals of a cosine; float32 products of equal vectors can differ in the seventh decimal."""


def ranks_of_pairs(
    queries_QD: NDArray[np.float32],
    passages_PD: NDArray[np.float32],
    query_M: NDArray[np.int64],
    passage_M: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Rank of each pair's passage among all passages, by cosine with the query, (M,).

    Args:
        queries_QD, passages_PD: unit vectors.
        query_M, passage_M: row indices of each pair.

    Example:
        >>> rows, vectors = np.array([0, 1]), np.eye(2, dtype=np.float32)
        >>> [ranks_of_pairs(vectors, vectors, rows, other).tolist() for other in (rows, 1 - rows)]
        [[1, 1], [2, 2]]
    """
    ranks_M = np.empty(len(query_M), dtype=np.int64)
    order = np.argsort(query_M, kind="stable")
    starts = np.searchsorted(query_M[order], np.arange(0, len(queries_QD), QUERIES_AT_ONCE))
    for begin, pairs in zip(
        range(0, len(queries_QD), QUERIES_AT_ONCE), np.split(order, starts[1:]), strict=True
    ):
        scores = (queries_QD[begin : begin + QUERIES_AT_ONCE] @ passages_PD.T).round(DECIMALS)
        rows = query_M[pairs] - begin
        for pair, row in zip(pairs, rows, strict=True):
            ranks_M[pair] = np.count_nonzero(scores[row] >= scores[row, passage_M[pair]])
    return ranks_M


def ranks_in_groups(scores_N: Floats, group_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each row within its group (number of rows with at least its score), (N,).

    Example:
        >>> ranks_in_groups(np.array([0.5, 0.9, 0.5, 0.1]), np.array([0, 0, 0, 1])).tolist()
        [3, 1, 3, 1]
    """
    ranks_N = np.empty(len(scores_N), dtype=np.int64)
    order = np.argsort(group_N, kind="stable")
    bounds = np.flatnonzero(np.diff(group_N[order])) + 1
    for rows in np.split(order, bounds):
        own = scores_N[rows]
        ranks_N[rows] = (own[None, :] >= own[:, None]).sum(axis=1)
    return ranks_N


def ranking_scores(
    rank_M: NDArray[np.int64], gain_M: Floats, query_M: NDArray[np.int64], num_queries: int
) -> dict[str, Floats]:
    """Compute the metrics `metric_names.RANKING` for each query, (Q,); 0 if nothing is relevant.

    Args:
        rank_M: rank of each given candidate among all candidates of its query; candidates without
            gain can be left out.
        gain_M: relevance; 0: not relevant.

    Example:
        >>> found = ranking_scores(np.array([1, 3]), np.ones(2), np.array([0, 1]), 2)
        >>> {name: values.tolist() for name, values in found.items()}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'ndcg@10': [1.0, 0.5], 'mrr@10': [1.0, 0.3333333333333333], 'recall@1': [1.0, 0.0],
         'recall@10': [1.0, 1.0]}
    """
    is_relevant = gain_M > 0
    rank_M, gain_M, query_M = rank_M[is_relevant], gain_M[is_relevant], query_M[is_relevant]
    rank_M = (
        rank_M + 1 - _places(gain_M, query_M, rank_M)
    )  # among ties, the most relevant comes last
    relevant_Q = np.bincount(query_M, minlength=num_queries)
    found: dict[str, Floats] = {}
    for name in RANKING:
        kind, _, cut = name.partition("@")
        is_in = rank_M <= int(cut)
        if kind == "ndcg":
            ideal_M = _places(gain_M, query_M)
            values, most = (
                np.bincount(query_M, gain_M * (ranks <= int(cut)) / np.log2(1 + ranks), num_queries)
                for ranks in (rank_M, ideal_M)
            )
        elif kind == "mrr":
            values, most = np.zeros(num_queries), np.ones(num_queries)
            np.maximum.at(values, query_M, is_in / rank_M)
        else:
            values, most = np.bincount(query_M, is_in * 1.0, num_queries), relevant_Q * 1.0
        found[name] = np.divide(values, most, out=np.zeros(num_queries), where=most > 0)
    return found


def order_scores(
    scores_N: NDArray[np.floating], relevance_N: NDArray[np.floating], query_N: NDArray[np.int64]
) -> dict[str, Floats]:
    """Compute the metrics for each query, for candidates that are ranked by their scores.

    Queries without a relevant candidate are left out, as in sentence-transformers, because their
    metrics are 0 for every model.

    Args:
        relevance_N: above 0 for a relevant candidate.
        query_N: index of each candidate's query, 0 to Q − 1.
    Raises:
        DataError: no query has a relevant candidate.

    Example:
        >>> found = order_scores(np.array([2.0, 1.0]), np.array([0.0, 1.0]), np.array([0, 0]))
        >>> found["mrr@10"].tolist(), found["recall@1"].tolist()
        ([0.5], [0.0])
    """
    ranks_N = ranks_in_groups(scores_N.astype(np.float64), query_N)
    gains_N = relevance_N.astype(np.float64)
    right_Q = np.bincount(query_N, gains_N > 0) > 0
    if not right_Q.any():
        raise DataError(
            f"none of the {len(right_Q):,} queries has a right candidate (a label above 0), so "
            "nothing can be ranked right; check the column of labels"
        )
    found = ranking_scores(ranks_N, gains_N, query_N, len(right_Q))
    return {name: values_Q[right_Q] for name, values_Q in found.items()}


def _places(gain_M: Floats, *same: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position (from 1) of each candidate by decreasing gain, among those with equal values in all
    arrays of `same`.
    """
    order = np.lexsort((-gain_M, *same))
    opens = np.ones(len(order), dtype=np.bool_)
    opens[1:] = np.any([np.diff(each[order]) != 0 for each in same], axis=0)
    firsts = np.maximum.accumulate(np.where(opens, np.arange(len(order)), 0))
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order)) - firsts + 1
    return places
