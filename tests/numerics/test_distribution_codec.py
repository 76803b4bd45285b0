"""Ids come back exactly, probabilities to their rounding, in a fixed number of bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attar.numerics.distribution_codec import DECODED_AT_ONCE, Codec, Records


def made(codec: Codec, tokens: int, seed: int, *, tail: float = 0.2) -> Records:
    """Random distinct exact ids, drawn ids that may repeat, and a head of mass 1 − tail."""
    draw = np.random.default_rng(seed)
    ids = np.stack([draw.permutation(codec.columns)[: codec.exact] for _ in range(tokens)])
    log_p = np.log(draw.dirichlet(np.ones(codec.exact), tokens) * (1 - tail) + 1e-30)
    drawn = draw.integers(0, codec.columns, (tokens, codec.draws))
    return Records(
        np.sort(ids, axis=1),
        log_p.astype(np.float32),
        np.full(tokens, tail, np.float32),
        np.sort(drawn, axis=1),
        -draw.random(tokens).astype(np.float32),
    )


@st.composite
def codecs(draw: st.DrawFn) -> Codec:
    columns = draw(st.integers(1, 300) | st.sampled_from([4096, 49_152, 151_936]))
    exact = draw(st.integers(1, min(columns, 60)))
    return Codec(columns, exact, draw(st.integers(0, 12)), draw(st.integers(1, 8)))


@given(codecs(), st.integers(1, 5), st.integers(0, 99), st.sampled_from([0.0, 0.3, 1.0]))
def test_ids_tail_and_constant_come_back_exactly(
    codec: Codec, tokens: int, seed: int, tail: float
) -> None:
    records = made(codec, tokens, seed, tail=tail)
    packed = codec.encode(records)
    assert packed.shape == (tokens, codec.record_bytes) and packed.dtype == np.uint8
    found = codec.decode(packed)
    for name in ("ids", "draws", "tail", "constant"):
        np.testing.assert_array_equal(getattr(found, name), getattr(records, name))
    np.testing.assert_allclose(np.exp(found.log_p).sum(1), 1 - tail, atol=1e-5)


def test_the_default_takes_at_most_100_bytes_and_rounds_by_less_than_a_thousandth() -> None:
    codec = Codec(49_152, 32, 8)
    assert codec.record_bytes == 95
    records = made(codec, 400, 0)
    found = codec.decode(codec.encode(records))
    p = np.exp(records.log_p.astype(np.float64))
    kl = (p * (records.log_p - found.log_p)).sum(1)
    assert 0 < kl.mean() < 1e-3
    level = (records.log_p.max(1) - records.log_p.min(1)) / 31
    shift = (records.log_p - found.log_p).mean(1, keepdims=True)
    assert (np.abs(records.log_p - found.log_p - shift) < 1.5 * level[:, None]).all()


def test_a_token_is_decoded_as_it_is_alone() -> None:
    codec = Codec(500, 6, 3)
    packed = codec.encode(made(codec, DECODED_AT_ONCE + 2, 1))
    whole, last = codec.decode(packed), codec.decode(packed[-1:])
    np.testing.assert_array_equal(whole.log_p[-1:], last.log_p)
    assert len(codec.decode(packed[:0]).ids) == 0


def test_impossible_probabilities_are_stored_as_the_lowest() -> None:
    codec = Codec(10, 3, 0)
    log_p = np.array([[0.0, -np.inf, -np.inf]], np.float32)
    none = np.zeros(1, np.float32)
    records = Records(np.array([[0, 4, 9]]), log_p, none, np.zeros((1, 0), np.int64), none)
    found = codec.decode(codec.encode(records))
    np.testing.assert_allclose(found.log_p, [[0, -60, -60]], atol=1e-5)


@pytest.mark.parametrize("damage", [slice(0, 50), slice(-10, -8), slice(-8, -4)])
def test_bytes_that_are_no_token_are_refused(damage: slice) -> None:
    codec = Codec(49_152, 32, 8)
    packed = codec.encode(made(codec, 3, 2))
    packed[1, damage] = 255
    with pytest.raises(ValueError, match="tokens"):
        codec.decode(packed)
