"""The cut keeps what a stable sort would keep, in whatever parts the scores come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.numerics import selection
from attar.numerics.selection import cut_of, ordered, share_of

NUMBERS = st.lists(
    st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0, -1.0]),
    min_size=1,
    max_size=60,
)


@settings(deadline=None)
@given(NUMBERS, st.data())
def test_the_largest_are_kept_and_of_equals_the_first(
    numbers: list[float], data: st.DataObject
) -> None:
    scores = np.array(numbers, np.float32)
    count = data.draw(st.integers(1, len(scores)))
    split = data.draw(st.integers(0, len(scores)))
    parts = [scores[:split], scores[split:]]
    cut = cut_of(lambda: iter(parts), count)
    kept, ties = [], 0
    for part in parts:
        kept.append(cut.keeps(part, ties))
        ties += int((ordered(part) == cut.key).sum())
    wanted = np.zeros(len(scores), np.bool_)
    wanted[np.argsort(-scores.astype(np.float64), kind="stable")[:count]] = True
    assert np.concatenate(kept).tolist() == wanted.tolist()


@pytest.mark.parametrize("count", [1, 500, 9_999, 10_000])
def test_many_scores_with_many_ties(count: int) -> None:
    scores = np.random.default_rng(0).integers(-50, 50, 10_000).astype(np.float32) / 8
    kept = cut_of(lambda: iter([scores]), count).keeps(scores, 0)
    order = np.argsort(-scores, kind="stable")[:count]
    assert np.array_equal(np.flatnonzero(kept), np.sort(order))


@settings(deadline=None)
@given(NUMBERS, st.integers(1, 9), st.data())
def test_the_highest_members_are_found_part_by_part(
    numbers: list[float], at_once: int, data: st.DataObject
) -> None:
    keys = np.array(numbers, np.float32)
    size = len(keys)
    is_member = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    members = np.flatnonzero(is_member)
    count = data.draw(st.integers(0, len(members)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "AT_ONCE", at_once)
        parts = selection.highest(size, lambda s: keys[s], lambda s: is_member[s], count)
        found = [index for part in parts for index in part.tolist()]
    best = members[np.argsort(-keys[members].astype(np.float64), kind="stable")[:count]]
    assert found == sorted(best.tolist())


@pytest.mark.parametrize(("share", "count"), [(0.29, 10**8), (0.57, 10**7), (0.58, 50), (1.0, 7)])
def test_a_share_is_that_of_the_decimal_number(share: float, count: int) -> None:
    assert share_of(share, count) == round(100 * share) * count // 100
