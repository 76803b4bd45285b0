"""ROUGE of whole and of empty texts, and its mean under the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from attar.errors import UsageError
from attar.numerics.metric_names import ROUGE
from attar.numerics.metrics import METRICS_OF_COUNTS
from attar.numerics.rouge import rouge_scores

pytest.importorskip("rouge_score")


def test_a_text_has_all_of_itself_and_nothing_of_another() -> None:
    scores = rouge_scores(["the cat sat down", "the cat sat down", ""], ["The cats sat down."] * 3)
    for name in ROUGE:
        assert scores[name].tolist() == [1.0, 1.0, 0.0]
    strange = rouge_scores(["red green blue"], ["one two three"])
    assert [strange[name].tolist() for name in ROUGE] == [[0.0]] * 3


def test_rouge_l_asks_for_the_order_and_rouge_2_for_neighbours() -> None:
    scores = rouge_scores(["c b a"], ["a b c"])
    assert (scores["rouge1"][0], scores["rouge2"][0]) == (1.0, 0.0)
    assert scores["rougeL"][0] == pytest.approx(1 / 3)


def test_a_resample_of_rows_is_the_mean_of_the_rows_drawn() -> None:
    scores = np.array([0.1, 0.5, 0.9])
    counts = np.array([[1.0, 1, 1], [3, 0, 0], [0, 1, 2]])
    means = METRICS_OF_COUNTS["rouge1"](scores, np.zeros(3), counts)
    np.testing.assert_allclose(means, [0.5, 0.1, (0.5 + 1.8) / 3])


def test_texts_and_references_must_be_as_many() -> None:
    with pytest.raises(UsageError, match="2 texts cannot be compared with 1"):
        rouge_scores(["a", "b"], ["a"])
