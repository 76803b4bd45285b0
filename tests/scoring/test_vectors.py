"""Rows of two texts, judged by vectors."""

from __future__ import annotations

import numpy as np
import pytest

from attar.scoring.vectors import TextPairs, unit_length, vector_agreement
from attar.tasks.embedding import Embedding

ROWS = [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")]


def test_every_different_text_is_read_once_with_its_prefix() -> None:
    pairs = TextPairs.of(ROWS)
    embedding = Embedding(query_prefix="q: ", passage_prefix="p: ")
    assert pairs.read_by(embedding) == [("q: a",), ("q: b",), ("p: x",), ("p: y",)]


def test_a_query_with_two_passages_is_one_query_of_which_both_are_relevant() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.8, 0.6], [1, 0]], dtype=np.float32)
    found = TextPairs.of(ROWS).found(vectors)
    assert {name: values.tolist() for name, values in found.items()} == {
        "ndcg@10": [1.0, 1.0],
        "mrr@10": [1.0, 1.0],
        "recall@1": [0.5, 1.0],
        "recall@10": [1.0, 1.0],
    }


def test_cosines_are_of_each_row_whatever_the_lengths() -> None:
    vectors = np.array([[2, 0], [0, 1], [3, 4], [5, 0]], dtype=np.float32)
    assert TextPairs.of(ROWS).cosines(vectors) == pytest.approx([0.6, 0.8, 1, 0.6])


def test_neighbours_agree_whatever_the_width_and_a_cosine_needs_equal_ones() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((40, 8)).astype(np.float32)
    padded = np.concatenate([vectors, np.zeros((40, 3), np.float32)], axis=1)
    found = vector_agreement(vectors, padded)
    assert (found.cosine, found.neighbour_overlap) == (None, 1.0)
    other = vector_agreement(vectors, draw.standard_normal((40, 8)).astype(np.float32))
    assert other.neighbour_overlap < 0.6 and abs(other.cosine or 0) < 0.3


def test_a_cut_vector_has_unit_length_again() -> None:
    cut = unit_length(np.array([[3, 4, 12]], dtype=np.float32), 2)
    assert cut == pytest.approx(np.array([[0.6, 0.8]]))
