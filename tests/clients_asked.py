"""Texts that programs other than attar are asked, and what attar answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TEXTS = [
    "a good movie",
    "A Good MOVIE, not bad!",
    "",
    "the file is bad " * 30,
    "good " * 3 + "how do i open a socket and read the list of the file " * 9,
    "café 電影 é",
]
"""Capitals, nothing, more tokens than are read, letters that the vocabulary lacks."""


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def attars_scores(folder: Path, texts: list[str]) -> list[dict[str, float]]:
    """Label → probability, by `attar.load`."""
    import attar

    return [dict(answer.scores) for answer in attar.load(folder, threads=1).predict(texts)]
