"""Seeds: pure functions of what they are for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attar.seeds import derive_seed, generator

PURPOSE = st.lists(st.text(alphabet="abc", min_size=1) | st.integers(0, 9), max_size=3).map(tuple)


@given(st.integers(0, 2**63 - 1), PURPOSE)
def test_a_seed_fits_every_generator(seed: int, purpose: tuple[str | int, ...]) -> None:
    derived = derive_seed(seed, *purpose)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, *purpose)


@given(st.integers(0, 99), PURPOSE, st.integers(0, 99), PURPOSE)
def test_other_purposes_get_other_seeds(
    seed: int, purpose: tuple[str | int, ...], other_seed: int, other: tuple[str | int, ...]
) -> None:
    same = (seed, *map(str, purpose)) == (other_seed, *map(str, other))
    assert (derive_seed(seed, *purpose) == derive_seed(other_seed, *other)) == same


def test_a_value_is_the_same_on_every_machine() -> None:
    assert derive_seed(0, "shuffle", 1) == 362459500748922820
    assert generator(0, "shuffle").random() == 0.7676367436099607


def test_draws_of_one_purpose_do_not_depend_on_draws_of_another() -> None:
    expected = generator(0, "b").random(3)
    generator(0, "a").random(100)
    np.testing.assert_array_equal(generator(0, "b").random(3), expected)
