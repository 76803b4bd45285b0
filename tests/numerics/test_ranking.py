"""Laws of ranking metrics."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from attar.errors import DataError
from attar.numerics.ranking import order_scores, ranking_scores, ranks_in_groups, ranks_of_pairs


def test_ndcg_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    draw = np.random.default_rng(0)
    gains = draw.integers(0, 4, size=(20, 15)).astype(float)
    gains[:, 0] = 1
    scores = draw.permuted(np.tile(np.arange(15.0), (20, 1)), axis=1)
    groups = np.repeat(np.arange(20), 15)
    ranks = ranks_in_groups(scores.ravel(), groups)
    found = ranking_scores(ranks, gains.ravel(), groups, 20)["ndcg@10"]
    assert found.mean() == pytest.approx(ndcg_score(gains, scores, k=10), abs=1e-12)


@pytest.mark.parametrize(("rows", "width"), [(30, 4), (5, 384), (257, 32)])
def test_a_model_that_gives_equal_vectors_finds_nothing(rows: int, width: int) -> None:
    own = np.arange(rows)
    for seed in range(10):  # a product of other sizes and values rounds otherwise
        vector = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
        same = np.tile(vector / np.linalg.norm(vector), (rows, 1))
        ranks = ranks_of_pairs(same, same, own, own)
        assert (ranks == rows).all()
    found = ranking_scores(np.full(30, 30), np.ones(30), np.arange(30), 30)
    assert all(values.sum() == 0 for values in found.values())


def test_equal_scores_count_as_in_their_worst_order() -> None:
    draw = np.random.default_rng(3)
    for _ in range(40):
        gains, scores = (draw.integers(0, 3, 5).astype(float) for _ in range(2))
        query = np.zeros(5, dtype=np.int64)
        found = order_scores(scores, gains, query)
        orders = [
            order_scores(scores - np.array(order) / 10, gains, query)
            for order in permutations(range(5))
        ]
        for name, values in found.items():
            assert values[0] == pytest.approx(min(one[name][0] for one in orders)), name


def test_queries_without_a_right_candidate_are_left_out() -> None:
    scores, gains = np.array([0.9, 0.1, 0.5, 0.4, 0.3]), np.array([1.0, 0.0, 0.0, 0.0, 2.0])
    query = np.array([0, 0, 1, 1, 2])
    found = order_scores(scores, gains, query)
    assert {name: values.tolist() for name, values in found.items()} == {
        name: [1.0, 1.0] for name in found
    }
    with pytest.raises(DataError, match="none of the 3 queries has a right candidate"):
        order_scores(scores, np.zeros(5), query)


def test_ranks_do_not_depend_on_the_order_of_pairs_nor_on_blocks() -> None:
    draw = np.random.default_rng(1)
    queries, passages = (draw.standard_normal((600, 8)).astype(np.float32) for _ in range(2))
    query, passage = draw.integers(0, 600, 900), draw.integers(0, 600, 900)
    scores = queries @ passages.T
    expected = (scores[query] >= scores[query, passage][:, None]).sum(axis=1)
    found = ranks_of_pairs(queries, passages, query, passage)
    assert np.abs(found - expected).max() <= 1  # a product in another block rounds otherwise
    order = draw.permutation(900)
    again = ranks_of_pairs(queries, passages, query[order], passage[order])
    assert np.array_equal(again, found[order])


def test_several_relevant_candidates_share_the_recall() -> None:
    ranks, query = np.array([1, 12, 2]), np.array([0, 0, 1])
    found = ranking_scores(ranks, np.ones(3), query, 3)
    assert found["recall@10"].tolist() == [0.5, 1.0, 0.0]
    assert found["mrr@10"].tolist() == [1.0, 0.5, 0.0]
    assert found["recall@1"].tolist() == [0.5, 0.0, 0.0]
    assert found["ndcg@10"][0] == pytest.approx(1 / (1 + 1 / np.log2(3)))
