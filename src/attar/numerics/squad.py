"""SQuAD's metrics for extractive question answering: exact match and F1.

Both ignore case, punctuation, the articles a, an and the, and repeated spaces.

    exact match    1 if both texts are equal
    F1             2 · common words / (words of one + words of the other), with repetitions

With several gold answers, the best match counts. An unanswerable question has the answer "", and
both metrics are 1 for "" and 0 for any other answer. This is the script of version 2.0; version 1.1
agrees if all gold answers contain a word other than an article.

    no-answer threshold    "" is predicted if the score of no answer minus that of the best answer
                           is above it. It maximizes F1 on validation data, with the same F1 as in
                           SQuAD's script. The script uses the score of the last answered question,
                           we use the midpoint to the next one, because new scores differ slightly

Source: Rajpurkar et al., SQuAD (2016) and Know What You Don't Know (2018), and their evaluation
scripts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
Floats = NDArray[np.float64]


def normalized(answer: str) -> str:
    """Normalize an answer for comparison.

    Example:
        >>> normalized("The  Eiffel-Tower, in a city!")
        'eiffeltower in city'
    """
    plain = answer.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", plain).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 if an answer equals one of the gold answers, otherwise 0. Args: as of `squad_f1`."""
    return float(any(normalized(answer) == normalized(gold) for gold in _compared(golds)))


def squad_f1(answer: str, golds: Sequence[str]) -> float:
    """Word F1 of an answer with the best-matching gold answer.

    Args:
        golds: gold answers; empty if the question has no answer.

    Example:
        >>> round(squad_f1("in Paris, France", ["Paris", "the city of Paris"]), 3), squad_f1("", [])
        (0.5, 1.0)
    """
    return max(
        _f1(normalized(answer).split(), normalized(gold).split()) for gold in _compared(golds)
    )


def _compared(golds: Sequence[str]) -> Sequence[str]:
    return [gold for gold in golds if normalized(gold)] or [""]


def _f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def best_threshold(no_answer: Floats, f1: Floats, has_answer: NDArray[np.bool_]) -> float:
    """The threshold on `no_answer` with the largest F1, if "" is predicted above it. Among equally
    good thresholds, the midpoint of the lowest range.

    Args:
        no_answer: score of no answer minus that of the best answer, (N,).
        f1: F1 of the best answers, (N,).
        has_answer: whether the question is answerable, (N,).

    The resulting F1 is at least that of always answering and that of never answering.

    Example:
        >>> best_threshold(np.array([-2.0, 1.0]), np.array([1.0, 0.0]), np.array([True, False]))
        -0.5
    """
    order = np.argsort(no_answer, kind="stable")
    # Going up through the scores, one question after the other is answered
    change = np.where(has_answer, f1, -1.0)[order]
    reached = float((~has_answer).sum()) + np.cumsum(change)
    ordered = no_answer[order]
    # among equal scores all are answered or none
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    reached = np.where(is_last, reached, -np.inf)
    best = int(reached.argmax())
    if reached[best] <= (~has_answer).sum():
        return float(np.nextafter(ordered[0], -np.inf))
    later = ordered[best + 1 : best + 2]
    middle = (ordered[best] + later) / 2
    return float(np.append(np.minimum(middle, np.nextafter(later, -np.inf)), ordered[best])[0])
