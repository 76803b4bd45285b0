"""Vendi score: the effective number of distinct items in a sample (Friedman & Dieng 2023,
arXiv 2210.02410).

The score is the exponential of the entropy of the eigenvalues of K/n, where K is the n × n matrix
of cosine similarities. K = XXᵀ has the nonzero eigenvalues of XᵀX, which is D × D whatever n is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def second_moments(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Σ x̂ x̂ᵀ over the rows, normalized to length 1; (D, D). Additive over parts of a sample.

    Args:
        embeddings: (N, D), without zero rows.
    """
    rows = np.asarray(embeddings, np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.T @ rows


def vendi_score(moments: NDArray[np.float64]) -> float:
    """Vendi score, from 1 (all rows in the same direction) to the number of rows (all orthogonal).

    Args:
        moments: (D, D), `second_moments` of the sample.

    Example:
        >>> round(vendi_score(second_moments(np.eye(4))), 6)
        4.0
    """
    eigenvalues = np.linalg.eigvalsh(moments / np.trace(moments))
    positive = eigenvalues[eigenvalues > 0]
    return float(np.exp(-np.sum(positive * np.log(positive))))
