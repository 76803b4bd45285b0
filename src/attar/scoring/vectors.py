"""Metrics of embedding models on rows of two texts: similarity and retrieval.

Each distinct text is embedded once as a query or as a passage. A row with a score is evaluated by
the cosine of its two vectors. A row without one states that its passage answers its query; every
other passage of the split is then a candidate for it.

Imports no torch. Shapes: N rows, Q queries, P passages, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.numerics.metric_names import RANKING
from attar.numerics.ranking import ranking_scores, ranks_of_pairs
from attar.tasks.embedding import SIDES, Embedding

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
NEIGHBOURS = 10


@dataclass(frozen=True)
class TextPairs:
    """The distinct texts of some rows, and their indices for each row."""

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    query_of: NDArray[np.int64]
    """(N,)."""
    passage_of: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[tuple[str, ...]]) -> TextPairs:
        """Collect the texts of rows of two, in order of first appearance."""
        sides = []
        for side in range(len(SIDES)):
            numbers: dict[str, int] = {}
            rows_of_side = [numbers.setdefault(row[side], len(numbers)) for row in rows]
            sides.append((tuple(numbers), np.array(rows_of_side, dtype=np.int64)))
        (queries, query_N), (passages, passage_N) = sides
        return cls(queries, passages, query_N, passage_N)

    @cached_property
    def identities(self) -> NDArray[np.int64]:
        """Ids of the texts of `read_by`, (Q + P,): equal for a query and a passage with the same
        text."""
        queries = {text: number for number, text in enumerate(self.queries)}
        later = (queries.get(text, len(queries) + i) for i, text in enumerate(self.passages))
        return np.array([*range(len(queries)), *later], dtype=np.int64)

    def read_by(self, embedding: Embedding) -> list[tuple[str, ...]]:
        """Input texts of the model: all queries, then all passages."""
        return [
            text
            for side, texts in zip(SIDES, (self.queries, self.passages), strict=True)
            for text in embedding.read_as(side, texts)
        ]

    def cosines(self, vectors: Vectors) -> Floats:
        """Cosine of each row's two vectors, (N,).

        Args:
            vectors: of the texts of `read_by`, (Q + P, D).
        """
        first, second = self._split(vectors)
        wide = first[self.query_of].astype(np.float64), second[self.passage_of].astype(np.float64)
        return np.einsum("nd,nd->n", *wide)

    def found(self, vectors: Vectors) -> dict[str, Floats]:
        """Ranking metrics of each query, (Q,), with passages ranked by cosine.

        Args:
            vectors: of the texts of `read_by`, (Q + P, D).
        """
        first, second = self._split(vectors)
        # a passage that two rows list for the same query is relevant once
        pairs = np.unique(np.stack([self.query_of, self.passage_of]), axis=1)
        ranks = ranks_of_pairs(first, second, *pairs)
        return ranking_scores(ranks, np.ones(len(ranks)), pairs[0], len(self.queries))

    def answers(
        self, metrics: Sequence[str], vectors: Vectors, labels: NDArray[np.float32]
    ) -> dict[str, tuple[Floats, NDArray[Any]]]:
        """Values to compare for each metric: cosines with the rows' scores, or for retrieval a
        score per query (with zeros).

        Args:
            labels: of the rows, (N,).
        """
        if metrics[0] not in RANKING:
            return dict.fromkeys(metrics, (self.cosines(vectors), labels))
        found = self.found(vectors)
        return {name: (found[name], np.zeros(len(self.queries))) for name in metrics}

    def _split(self, vectors: Vectors) -> tuple[Vectors, Vectors]:
        unit = unit_length(vectors)
        return unit[: len(self.queries)], unit[len(self.queries) :]


def unit_length(vectors: Vectors, width: int | None = None) -> Vectors:
    """The first `width` dimensions of each vector (None: all), normalized to length 1; a zero
    vector stays zero.

    Example:
        >>> unit_length(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)).round(2).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    kept = vectors[:, :width]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.divide(kept, lengths, out=np.zeros_like(kept), where=lengths > 0)


@dataclass(frozen=True)
class VectorAgreement:
    """Similarity of two models' vectors of the same texts."""

    cosine: float | None
    """Mean cosine between the two vectors of each text; None: the widths differ."""
    worst_cosine: float | None
    neighbour_overlap: float
    """Share of a text's ten nearest neighbours that both models have in common, averaged over the
    texts."""

    def as_json(self) -> dict[str, float | None]:
        return asdict(self)


def vector_agreement(ours: Vectors, theirs: Vectors) -> VectorAgreement:
    """Compare the vectors of two models, (N, D) and (N, E), N ≥ 1.

    Example:
        >>> x = np.eye(3, dtype=np.float32)
        >>> vector_agreement(x, 2 * x)
        VectorAgreement(cosine=1.0, worst_cosine=1.0, neighbour_overlap=1.0)
    """
    first, second = unit_length(ours), unit_length(theirs)
    mean = worst = None
    if first.shape == second.shape:
        cosines = np.einsum("nd,nd->n", first, second, dtype=np.float64)
        mean, worst = float(cosines.mean()), float(cosines.min())
    own, other = _neighbours(first), _neighbours(second)
    shared = [len(np.intersect1d(*pair)) for pair in zip(own, other, strict=True)]
    overlap = float(np.mean(shared)) / own.shape[1] if own.shape[1] else 1.0
    return VectorAgreement(mean, worst, overlap)


def _neighbours(unit: Vectors) -> NDArray[np.int64]:
    """The nearest other texts of each text, (N, ≤ 10)."""
    count = min(NEIGHBOURS, len(unit) - 1)
    found = []
    for begin in range(0, len(unit), 256):
        scores = unit[begin : begin + 256] @ unit.T
        rows = np.arange(len(scores))
        scores[rows, begin + rows] = -np.inf
        found.append(np.argpartition(-scores, max(count - 1, 0), axis=1)[:, :count])
    return np.concatenate(found)
