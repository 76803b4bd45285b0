"""Candidates for queries: rows of (query, passage) that are ranked per query.

Search data often contains only the correct pairs: a question and the passage that answers it.
Negatives are then drawn from the passages of other queries. They are the same in every step and for
every seed, so that models are compared on equal candidates. These negatives are easy; labelled
candidates retrieved by a first-stage search are better data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attar.data.tables import Split
from attar.errors import DataError
from attar.seeds import generator

NEGATIVES = 9
"""Negatives per query; with the correct passage there are ten candidates."""
NEGATIVES_SEED = 0


def query_numbers(texts: Sequence[tuple[str, ...]]) -> NDArray[np.int64]:
    """Number of each row's query (its first text), counted in order of first appearance.

    Example:
        >>> query_numbers([("a", "x"), ("b", "x"), ("a", "y")]).tolist()
        [0, 1, 0]
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row[0], len(numbers)) for row in texts], dtype=np.int64)


def whole_queries(texts: Sequence[tuple[str, ...]], order: np.ndarray, rows: int) -> np.ndarray:
    """All rows of the first queries in `order`: at most `rows` rows, but at least one query. Row
    numbers are returned in increasing order.

    Example:
        >>> whole_queries([("a", "x"), ("b", "x"), ("a", "y")], np.array([2, 1, 0]), 2).tolist()
        [0, 2]
    """
    query_of = query_numbers(texts)
    sizes = np.bincount(query_of)
    queries = np.array(list(dict.fromkeys(query_of[order].tolist())))
    count = max(1, int(np.searchsorted(sizes[queries].cumsum(), rows, side="right")))
    return np.flatnonzero(np.isin(query_of, queries[:count]))


def with_wrong_candidates(split: Split, count: int, where: str) -> Split:
    """Rows of matching texts (label 1), followed for each query by `count` passages of other
    queries (label 0).

    Raises:
        DataError: there are fewer than `count` other passages.
    """
    query_of = query_numbers(split.texts)
    right: dict[int, dict[str, None]] = {}
    for query, (_, passage) in zip(query_of.tolist(), split.texts, strict=True):
        right.setdefault(query, {})[passage] = None
    passages = list(dict.fromkeys(passage for _, passage in split.texts))
    most = max(map(len, right.values()), default=0)
    if len(passages) - most < count:
        raise DataError(
            f"{where} has {len(passages)} distinct passages, of which up to {most} answer one "
            f"query: too few for {count} negatives; lower negatives, or add rows"
        )
    names = list(dict.fromkeys(query for query, _ in split.texts))
    random = generator(NEGATIVES_SEED, "wrong candidates")
    texts: list[tuple[str, ...]] = []
    labels: list[float] = []
    for query, answers in right.items():
        wrong: dict[str, None] = {}
        while len(wrong) < count:
            drawn = passages[int(random.integers(len(passages)))]
            if drawn not in answers:
                wrong[drawn] = None
        texts += [(names[query], passage) for passage in (*answers, *wrong)]
        labels += [1.0] * len(answers) + [0.0] * len(wrong)
    return Split(tuple(texts), np.array(labels, dtype=np.float32))
