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


def test_the_overlap_is_that_of_the_ten_nearest_others_of_every_text() -> None:
    """As a sort of all pairs finds them, of more texts than are compared at a time, and of few."""
    draw = np.random.default_rng(1)
    for texts in (300, 6):
        ours = draw.standard_normal((texts, 8)).astype(np.float32)
        theirs = ours + draw.standard_normal((texts, 8)).astype(np.float32)
        theirs[texts - 50 :] = ours[texts - 50 :]
        shares = []
        for text in range(texts):
            nearest = []
            for vectors in map(unit_length, (ours, theirs)):
                order = np.argsort(-(vectors @ vectors[text]))
                nearest.append(set(order[order != text][:10]))
            shares.append(len(nearest[0] & nearest[1]) / len(nearest[0]))
        assert vector_agreement(ours, theirs).neighbour_overlap == pytest.approx(np.mean(shares))


def test_scores_are_compared_with_cosines_and_rankings_with_nothing() -> None:
    pairs, labels = TextPairs.of(ROWS), np.arange(4, dtype=np.float32)
    vectors = np.array([[2, 0], [0, 1], [3, 4], [5, 0]], dtype=np.float32)
    for found, wanted in pairs.answers(["pearson", "spearman"], vectors, labels).values():
        assert (found.tolist(), wanted.tolist()) == (pairs.cosines(vectors).tolist(), [0, 1, 2, 3])
    ranked = pairs.answers(["mrr@10"], vectors, labels)
    assert {name: list(map(list, pair)) for name, pair in ranked.items()} == {
        "mrr@10": [list(pairs.found(vectors)["mrr@10"]), [0, 0]]
    }
