"""Selects the k largest of very many numbers, exactly, in constant memory.

Sorting 10⁸ scores from files would take gigabytes. But the bits of a float32, mapped to an unsigned
integer, have the same order as the number. One pass counts the upper sixteen bits, which gives the
bucket of the k-th largest; a second pass counts the lower sixteen bits within that bucket, which
gives the number. Ties are broken by index.
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
"""Number of values processed at a time."""
Parts = Callable[[], Iterable[NDArray[np.float32]]]
"""Returns the numbers in parts; can be called repeatedly. There are no NaN."""


@dataclass(frozen=True)
class Cut:
    """Where the k largest end."""

    key: int
    """Ordered form of the k-th largest (`ordered`); everything above it is kept."""
    ties: int
    """Number of values equal to it that are kept: the first ones."""

    def keeps(self, scores: NDArray[np.float32], ties_before: int) -> NDArray[np.bool_]:
        """Mask of the scores to keep.

        Args:
            ties_before: number of scores equal to the cut in earlier parts.
        """
        keys = ordered(scores)
        is_tie = keys == self.key
        return (keys > self.key) | (is_tie & (ties_before + np.cumsum(is_tie) <= self.ties))


def share_of(share: float, count: int) -> int:
    """⌊share · count⌋ for the decimal value of the share; in floating point, 0.29 · 100 < 29.

    Example:
        >>> share_of(0.29, 100), share_of(0.29, 10**8)
        (29, 29000000)
    """
    return int(Fraction(str(share)) * count)


def spans(count: int) -> Iterator[slice]:
    """Slices of `AT_ONCE` numbers, so that temporary arrays fit in the cache."""
    return (slice(at, min(at + AT_ONCE, count)) for at in range(0, count, AT_ONCE))


def are_rows(rows: NDArray[np.integer], count: int) -> bool:
    """Whether `rows` are strictly increasing indices from 0 to below `count`."""
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
    """Yield the indices of the members with the highest keys, in parts, in ascending order; among
    ties, the first ones.

    Args:
        size: total number of keys.
        keys: part → its keys. Keys of members are not NaN.
        members: part → mask of members. Called several times per part, the last time just before
            the indices of the part are yielded.
        count: number of members to select, at most their number.

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
    """Map numbers to integers with the same order; 0.0 and −0.0 are equal.

    Example:
        >>> np.argsort(ordered(np.array([0.5, -2, 3, -0.5], np.float32))).tolist()
        [1, 3, 0, 2]
    """
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.uint32)
    negative = (bits.view(np.int32) >> 31).view(np.uint32)  # all bits set for negative numbers
    return bits ^ (negative | np.uint32(2**31))


def unordered(keys: NDArray[np.integer]) -> NDArray[np.float32]:
    """The inverse of `ordered`.

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
    """The bucket of the `count`-th largest number, and how many numbers are above it."""
    from_the_top = above + np.cumsum(counts[::-1])
    reached = int(np.searchsorted(from_the_top, count))
    bucket = BUCKETS - 1 - reached
    return bucket, int(from_the_top[reached] - counts[bucket])
