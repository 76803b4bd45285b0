"""Candidates of queries: rows of (query, passage) that are put into an order for each query.

Data for search often has only the right answers: a question and the passage that answers it. Wrong
candidates are then drawn from the passages of other queries, the same ones in every step and for
every seed, so that models are compared on equal candidates. They are easy ones: candidates that a
first search found, with labels, are the better data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attar.data.tables import Split
from attar.errors import DataError
from attar.seeds import generator

NEGATIVES = 9
"""With the right one, ten candidates."""
NEGATIVES_SEED = 0


def query_numbers(texts: Sequence[tuple[str, ...]]) -> NDArray[np.int64]:
    """Of each row, the number of its query (its first text), counted in the order of the rows.

    Example:
        >>> query_numbers([("a", "x"), ("b", "x"), ("a", "y")]).tolist()
        [0, 1, 0]
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row[0], len(numbers)) for row in texts], dtype=np.int64)


def whole_queries(texts: Sequence[tuple[str, ...]], order: np.ndarray, rows: int) -> np.ndarray:
    """The rows of the first queries of an order of rows, at most `rows` in all, one query at least;
    rising.

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
    """Rows whose texts belong together (label 1), and for each query `count` passages of other
    queries (label 0), one after another.

    Raises:
        DataError: there are not so many other passages.
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
