"""The k largest of very many numbers, exactly, in constant memory.

The problem: 10⁸ scores lie in files, and sorting them takes gigabytes. The idea: read as an
unsigned integer with its sign handled, a float32 orders as the number does. One pass counts the
upper sixteen bits of all, which finds the 65,536 neighbours among which the k-th largest lies; a
second pass counts their lower sixteen bits, which finds it. Equal numbers are distinguished by
their index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

HALF = 16
BUCKETS = 2**HALF
AT_ONCE = 2**18
"""Numbers looked at together."""
Parts = Callable[[], Iterable[NDArray[np.float32]]]
"""Gives the numbers, part by part, as often as it is called. None of them is NaN."""


@dataclass(frozen=True)
class Cut:
    """Where the k largest end."""

    key: int
    """Ordered form of the k-th largest (`ordered`); everything above it is kept."""
    ties: int
    """How many of those equal to it are kept: the first ones."""

    def keeps(self, scores: NDArray[np.float32], ties_before: int) -> NDArray[np.bool_]:
        """Which of some scores are kept.

        Args:
            ties_before: scores equal to the cut in the parts before this one.
        """
        keys = ordered(scores)
        is_tie = keys == self.key
        return (keys > self.key) | (is_tie & (ties_before + np.cumsum(is_tie) <= self.ties))


def share_of(share: float, count: int) -> int:
    """⌊share · count⌋ of the share as it is written: in floating point, 0.29 · 100 is below 29.

    Example:
        >>> share_of(0.29, 100), share_of(0.29, 10**8)
        (29, 29000000)
    """
    return int(Fraction(str(share)) * count)


def spans(count: int) -> Iterator[slice]:
    """Very many numbers part by part: what is made of a part fits into a core's cache."""
    return (slice(at, min(at + AT_ONCE, count)) for at in range(0, count, AT_ONCE))


def are_rows(rows: NDArray[np.integer], count: int) -> bool:
    """Whether they are numbers from 0 to below `count`, each above the one before."""
    parts = (rows[span.start : span.stop + 1] for span in spans(len(rows)))
    return not len(rows) or bool(
        rows[0] >= 0 and rows[-1] < count and all((part[1:] > part[:-1]).all() for part in parts)
    )


def highest(
    size: int,
    keys: Callable[[slice], NDArray[np.float32]],
    members: Callable[[slice], NDArray[np.bool_]],
    count: int,
) -> Iterator[NDArray[np.int64]]:
    """Indices of the members with the highest keys, part by part, rising; of equals the first.

    Args:
        size: of all numbers.
        keys: part → its numbers. No member's is NaN.
        members: part → which of its numbers are members; asked again and again, for the last time
            when the indices of that part are given.
        count: at most the number of members.

    Example:
        >>> keys = np.array([1, 3, 2, 3], np.float32)
        >>> found = highest(4, lambda part: keys[part], lambda part: keys[part] > 1, 2)
        >>> [indices.tolist() for indices in found]
        [[1, 3]]
    """
    if not count:
        return
    cut = cut_of(lambda: (keys(span)[members(span)] for span in spans(size)), count)
    ties = 0
    for span in spans(size):
        inside = np.flatnonzero(members(span))
        found = keys(span)[inside]
        yield span.start + inside[cut.keeps(found, ties)]
        ties += int(np.count_nonzero(ordered(found) == cut.key))


def ordered(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers that order as the numbers do; 0.0 and −0.0 are equal.

    Example:
        >>> np.argsort(ordered(np.array([0.5, -2, 3, -0.5], np.float32))).tolist()
        [1, 3, 0, 2]
    """
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.uint32)
    negative = (bits.view(np.int32) >> 31).view(np.uint32)  # every bit of a negative number's
    return bits ^ (negative | np.uint32(2**31))


def unordered(keys: NDArray[np.integer]) -> NDArray[np.float32]:
    """The numbers whose `ordered` form these are.

    Example:
        >>> unordered(ordered(np.array([0.5, -2, 0], np.float32))).tolist()
        [0.5, -2.0, 0.0]
    """
    bits = np.asarray(keys).astype(np.uint32)
    is_negative = bits < np.uint32(2**31)
    return np.where(is_negative, ~bits, bits ^ np.uint32(2**31)).view(np.float32)


def cut_of(parts: Parts, count: int) -> Cut:
    """The cut below the `count` largest.

    Args:
        count: at least 1, at most the number of scores.
    """
    upper = _counts(keys >> HALF for keys in _keys(parts))
    bucket, above = _place(upper, count)
    in_bucket = (keys[keys >> HALF == bucket] for keys in _keys(parts))
    low, above = _place(_counts(keys & (BUCKETS - 1) for keys in in_bucket), count, above)
    return Cut(key=(bucket << HALF) | low, ties=count - above)


def _keys(parts: Parts) -> Iterator[NDArray[np.uint32]]:
    return (ordered(part[span]) for part in parts() for span in spans(len(part)))


def _counts(parts: Iterable[NDArray[np.integer]]) -> NDArray[np.int64]:
    counts = np.zeros(BUCKETS, np.int64)
    for part in parts:
        counts += np.bincount(part, minlength=BUCKETS)
    return counts


def _place(counts: NDArray[np.int64], count: int, above: int = 0) -> tuple[int, int]:
    """The bucket of the `count`-th largest, and how many lie above that bucket."""
    from_the_top = above + np.cumsum(counts[::-1])
    reached = int(np.searchsorted(from_the_top, count))
    bucket = BUCKETS - 1 - reached
    return bucket, int(from_the_top[reached] - counts[bucket])
