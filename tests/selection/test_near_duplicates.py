"""MinHash finds what exact Jaccard similarity finds, but for what lies at the threshold."""

from __future__ import annotations

import random

import pytest

import corpora
from attar.selection.near_duplicates import grams, near_duplicates, similarity

THRESHOLD = 0.7


def _changed(text: str, share: float, draw: random.Random) -> str:
    """The text with some of its words replaced."""
    words = text.split()
    for place in draw.sample(range(len(words)), int(share * len(words))):
        words[place] = f"w{draw.randrange(10**6)}"
    return " ".join(words)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = random.Random(0)
    originals = [" ".join(corpora.texts(6, seed)) for seed in range(40)]
    copies = [_changed(text, share, draw) for text in originals for share in (0.0, 0.02, 0.2)]
    return originals + copies


def test_similarity_is_the_share_of_five_words_in_a_row_that_both_texts_have() -> None:
    assert grams("a b c D e f") == ["a b c d e", "b c d e f"]
    assert similarity("a b c d e f", "A b c d e g") == 1 / 3
    assert similarity("a b c d e f g h", "a b c d e f g x") == 3 / 5


def test_repeats_are_those_of_exact_similarity(texts: list[str]) -> None:
    margin = 4 * 0.5 / 128**0.5  # four standard errors of a signature of 128
    for number, found in enumerate(near_duplicates(texts, THRESHOLD)):
        exact = [similarity(texts[number], earlier) for earlier in texts[:number]]
        highest = max(exact, default=0.0)
        if found is not None:
            assert exact[found] >= THRESHOLD - margin
        if highest >= THRESHOLD + margin:
            assert found is not None
        if highest < THRESHOLD - margin:
            assert found is None


def test_a_chain_of_copies_is_set_against_the_first() -> None:
    text = " ".join(corpora.texts(5))
    other = " ".join(corpora.texts(5, seed=9))
    assert list(near_duplicates([text, other, text, text], 0.8)) == [None, None, 0, 0]


def test_short_texts_are_compared_whole() -> None:
    assert list(near_duplicates(["a b", "a c", "A  B"], 0.9)) == [None, None, 0]
