"""How well an answer that is a part of a text agrees with those of people: SQuAD's two measures.

Both compare texts without case, punctuation, the words a, an and the, and runs of spaces.

    exact match    1 where the two are equal
    F1             2 · common words / (words of one + words of the other), repeated ones too

Of several answers the best agreement counts. A question without an answer has the answer "", and
both measures are then 1 for "" and 0 for any other. That is version 2.0's script; version 1.1's
agrees wherever people's answers have a word beside a, an and the.

    no-answer threshold    the score of no answer minus that of the best one above which "" is said;
                           chosen where F1 over validation is largest, with the F1 that the
                           script's has: the script's is the last score that is answered, ours the
                           middle between it and the next, since new texts lie a little beside

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
    """An answer as it is compared.

    Example:
        >>> normalized("The  Eiffel-Tower, in a city!")
        'eiffeltower in city'
    """
    plain = answer.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", plain).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 where an answer equals one of people's, else 0. Args: as of `squad_f1`."""
    return float(any(normalized(answer) == normalized(gold) for gold in _compared(golds)))


def squad_f1(answer: str, golds: Sequence[str]) -> float:
    """F1 of the words of an answer and of those of the one of people's that is nearest.

    Args:
        golds: none: the question has no answer.

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
    """The threshold with the largest F1 when "" is said wherever `no_answer` is above it; of equals
    the middle of the lowest range of them.

    Args:
        no_answer: score of no answer minus that of the best one, (N,).
        f1: of the best answers, (N,).
        has_answer: whether there is one, (N,).

    Law: the F1 it leaves is at least that of always answering, and of never.

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
