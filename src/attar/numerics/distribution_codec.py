"""Stores a token's distribution over a vocabulary in about ninety bytes.

A teacher's distribution over V = 49,152 ids takes 4·V = 197 kB per token. A student only needs the
k most likely ids with their probabilities, and a representation of the tail
(`attar.numerics.sparse_distributions`). All fields have a fixed width, so that tokens are rows of a
byte matrix with random access, and a batch is decoded by a few array operations.

    exact ids       Elias–Fano: n sorted ids below V take n·l low bits, l = ⌊log₂ V/n⌋, and
                    n + ⌊(V − 1)/2^l⌋ bits with a one for each high part, in unary
    drawn ids       the same; an id can occur more than once
    log p           `bits` per value: log p = log p_max − range · level / top level
    range           float16;  mass of the tail and Σ p log p: float32

k = 32, m = 8, V = 49,152: 50 + 14.5 + 20 + 10 = 95 bytes. A set of 32 ids has 381 bits of
information, Elias–Fano uses 399. Decoded probabilities are normalized to 1 minus the mass of the
tail. Left out: levels with smaller steps near the top (for SmolLM2's distributions on novels, equal
steps are best), and frequency-based coding, which has no fixed width.

Letters: N tokens · V vocabulary · k exact ids · m draws · R bytes of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

BITS = 5
"""Bits per log-probability."""
LARGEST_RANGE = 60.0
"""Maximum range in nats below the most likely id. Lower values, with a mass of 1e-26, are clipped.
"""
DECODED_AT_ONCE = 256
"""Number of tokens decoded at once; their bits, one byte each, fit in the processor's cache."""


@dataclass(frozen=True)
class Records:
    """The stored data of N tokens."""

    ids: Int[NDArray[np.int64], "N k"]
    """The most likely ids, in ascending order."""
    log_p: Float[NDArray[np.float32], "N k"]
    """Log-probabilities in nats; the probabilities sum to 1 − tail."""
    tail: Float[NDArray[np.float32], " N"]
    """Mass of all other ids."""
    draws: Int[NDArray[np.int64], "N m"]
    """Ids drawn from the tail, in ascending order; each has the mass tail / m."""
    constant: Float[NDArray[np.float32], " N"]
    """Σ p log p over all ids, in nats."""


@dataclass(frozen=True)
class Codec:
    """Fixed-width encoding of `Records`.

    Args:
        columns: V; ids are below it.
        exact: k, at most V.
    """

    columns: int
    exact: int
    draws: int
    bits: int = BITS

    @property
    def record_bytes(self) -> int:
        """Bytes per token, R."""
        return self._bit_bytes + 2 + 4 + 4

    def encode(self, records: Records) -> UInt8[NDArray[np.uint8], "N R"]:
        """Pack tokens; ids are exact, log-probabilities are rounded to `bits`."""
        depth = records.log_p.max(1, keepdims=True, initial=-np.inf) - records.log_p
        depth = np.minimum(depth, LARGEST_RANGE)
        wide = depth.max(1, initial=0).astype("<f2")
        share = depth / np.maximum(wide.astype(np.float32), np.finfo(np.float32).tiny)[:, None]
        levels = np.minimum(np.rint(share * self._top), self._top).astype(np.int64)
        bits = np.concatenate(
            [
                self._packed_ids(records.ids),
                self._packed_ids(records.draws),
                _bits_of(levels, self.bits),
            ],
            axis=1,
        )
        numbers = (wide, records.tail.astype("<f4"), records.constant.astype("<f4"))
        parts = [np.packbits(bits, axis=1)]
        parts += [np.ascontiguousarray(x)[:, None].view(np.uint8) for x in numbers]
        return np.concatenate(parts, axis=1)

    def decode(self, packed: UInt8[NDArray[np.uint8], "N R"]) -> Records:
        """Unpack tokens.

        Raises:
            ValueError: the bytes are invalid; not all damage is detected.
        """
        size, names = DECODED_AT_ONCE, [field.name for field in fields(Records)]
        begins = range(0, max(len(packed), 1), size)
        parts = [self._decoded(packed[at : at + size]) for at in begins]
        return Records(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))

    def _decoded(self, packed: NDArray[np.uint8]) -> Records:
        wide, tail, constant = self._numbers(packed)
        bits = np.unpackbits(packed[:, : self._bit_bytes], axis=1)
        ends = np.cumsum([_id_bits(n, self.columns) for n in (self.exact, self.draws)])
        ids = self._unpacked_ids(bits[:, : ends[0]], self.exact)
        draws = self._unpacked_ids(bits[:, ends[0] : ends[1]], self.draws)
        last = ends[1] + self.exact * self.bits
        levels = _values_of(bits[:, ends[1] : last], self.bits, self.exact)
        depth = wide[:, None] * (levels / np.float32(self._top))
        # the sum of exp(−depth) is at least 1, because of the most likely id
        head = np.maximum(1 - tail, np.finfo(np.float32).tiny)
        scale = np.log(head) - np.log(np.exp(-depth).sum(1))
        return Records(ids, scale[:, None] - depth, tail, draws, constant)

    @property
    def _top(self) -> int:
        return 2**self.bits - 1

    @property
    def _bit_bytes(self) -> int:
        ids = sum(_id_bits(n, self.columns) for n in (self.exact, self.draws))
        return -(-(ids + self.exact * self.bits) // 8)

    def _numbers(self, packed: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        at, found = self._bit_bytes, list[NDArray[np.float32]]()
        for kind in ("<f2", "<f4", "<f4"):
            size = int(kind[2])
            raw = np.ascontiguousarray(packed[:, at : at + size])
            found.append(raw.view(kind)[:, 0].astype(np.float32))
            at += size
        wide, tail, constant = found
        is_sound = (wide >= 0) & (tail >= 0) & (tail <= 1.0001) & (constant <= 0.0001)
        if not is_sound.all():  # also false for NaN
            raise ValueError(f"{int((~is_sound).sum())} tokens have an impossible mass or range")
        return wide, tail, constant

    def _packed_ids(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Elias–Fano, (N, bits)."""
        count, low_bits = ids.shape[1], _low_bits(ids.shape[1], self.columns)
        width = _id_bits(count, self.columns) - count * low_bits
        high = np.zeros((len(ids), width), np.bool_)
        places = np.add(ids >> low_bits, np.arange(count, dtype=np.int64), dtype=np.int64)
        np.put_along_axis(high, places, True, axis=1)
        return np.concatenate([_bits_of(ids, low_bits), high], axis=1)

    def _unpacked_ids(self, bits: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
        low_bits = _low_bits(count, self.columns)
        low = _values_of(bits[:, : count * low_bits], low_bits, count).astype(np.int64)
        ones = np.nonzero(bits[:, count * low_bits :])
        is_whole = len(ones[0]) == count * len(bits) and np.array_equal(
            ones[0], np.repeat(np.arange(len(bits)), count)
        )
        if not is_whole:
            raise ValueError(f"the ids of some of {len(bits)} tokens cannot be read")
        high = ones[1].reshape(len(bits), count) - np.arange(count)
        found = (high << low_bits) + low
        if found.max(initial=0) >= self.columns:
            raise ValueError(f"id {found.max()} of {self.columns}")
        return found


def _low_bits(count: int, columns: int) -> int:
    return max((columns // max(count, 1)).bit_length() - 1, 0)


def _id_bits(count: int, columns: int) -> int:
    """Number of bits for `count` sorted ids below `columns`."""
    if count == 0:
        return 0
    low_bits = _low_bits(count, columns)
    return count * low_bits + count + ((columns - 1) >> low_bits)


def _bits_of(values: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
    """(N, n) numbers below 2^bits → (N, n · bits)."""
    found = (values[:, :, None] >> np.arange(bits)) & 1
    return found.reshape(len(values), -1).astype(np.bool_)


def _values_of(bits: NDArray[np.uint8], width: int, count: int) -> NDArray[np.float32]:
    """The inverse of `_bits_of`, as float32, which is exact below 2^24 and much faster."""
    powers = np.exp2(np.arange(width, dtype=np.float32))
    return bits.reshape(len(bits), count, width).astype(np.float32) @ powers
