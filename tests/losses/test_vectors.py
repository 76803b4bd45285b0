"""Laws of the losses on vectors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from attar.errors import DataError, ModelError
from attar.losses.config import Contrastive, Cosine, LossConfig, SimilarityKl, VectorMse
from attar.losses.targets import Outputs, Targets, WholeBatch, count_units
from attar.losses.total import TotalLoss
from attar.losses.vectors import contrastive, similarity_kl

B, D = 5, 6
LABELS = torch.tensor([1.0, 0.5, float("nan"), 0.0, 0.25], dtype=torch.float64)
TEXTS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 5]])  # rows 0 and 4 share their second text


def vectors(seed: int, width: int = D) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2 * B, width, generator=g, dtype=torch.float64)


def evaluate(config: LossConfig, student: torch.Tensor, teacher: torch.Tensor | None) -> Any:
    targets = Targets(LABELS, {}, texts=TEXTS)
    loss = TotalLoss([config], "sentence_embedding")
    taught = None if teacher is None else Outputs(teacher)
    return loss(Outputs(student), taught, targets, count_units(LABELS, {}))


def test_contrastive_is_log_n_where_all_are_equal_and_near_zero_where_only_pairs_agree() -> None:
    x = torch.eye(4)
    assert contrastive(torch.ones(4, 3), torch.ones(4, 3)).tolist() == pytest.approx(
        [math.log(4)] * 4
    )
    assert contrastive(x, 3 * x).max() < 1e-7


def test_rows_that_share_a_text_are_no_negatives_of_each_other() -> None:
    same = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])
    x = torch.randn(3, 4)
    apart = contrastive(x, x, 0.05, same)
    assert apart[0] == pytest.approx(float(contrastive(x[:2], x[:2])[0]), abs=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_text_on_the_other_side_of_a_row_is_not_its_own_negative(symmetric: bool) -> None:
    """Row 0 is (a, b), row 1 is (c, a): told apart from a, a would be pushed from itself."""
    texts = torch.tensor([[0, 2, 3], [1, 0, 4]])
    student = torch.randn(6, D, generator=torch.Generator().manual_seed(0))
    student[4] = student[0]
    loss = TotalLoss([Contrastive(symmetric=symmetric)], "sentence_embedding")
    targets = Targets(torch.full((3,), float("nan")), {}, texts=texts)
    found = loss(Outputs(student), None, targets, {"prediction": 3, "labelled": 1}).total
    unit = torch.nn.functional.normalize(student, dim=1)
    scores = unit[:3] @ unit[3:].T / 0.05
    scores[0, 1] = float("-inf")  # a with a
    own = scores.diagonal()
    expected = (scores.logsumexp(dim=1) - own).mean()
    if symmetric:
        expected = (expected + (scores.logsumexp(dim=0) - own).mean()) / 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("config", [VectorMse(), VectorMse(widths=(6, 2)), SimilarityKl()])
def test_a_student_like_its_teacher_has_no_loss_and_the_gradient_reaches_it_alone(
    config: LossConfig,
) -> None:
    assert evaluate(config, vectors(0), vectors(0)).total.abs() < 1e-12
    student, teacher = vectors(0).requires_grad_(), vectors(1).requires_grad_()
    values = evaluate(config, student, teacher)
    assert values.total > 0
    values.total.backward()
    assert teacher.grad is None and student.grad is not None and student.grad.norm() > 0


def test_similarities_are_blind_to_rotation_and_width() -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    turned = 7 * torch.cat([x, torch.zeros(6, 2, dtype=torch.float64)], dim=1).flip(1)
    assert similarity_kl(x, turned).max() < 1e-12


def test_cosine_asks_for_the_share_of_the_best_score() -> None:
    student = vectors(0)
    given = torch.nn.functional.cosine_similarity(student[:B], student[B:])
    known = ~LABELS.isnan()
    expected = (given - LABELS)[known].square().sum() / B
    torch.testing.assert_close(evaluate(Cosine(), student, None).total, expected)
    with pytest.raises(DataError, match=r"best_score is 0\.5"):
        evaluate(Cosine(best_score=0.5), student, None)


def test_widths_are_the_mean_over_cut_vectors() -> None:
    student = vectors(0)
    each = [
        evaluate(Contrastive(), student[:, :width].contiguous(), None).total for width in (2, 6)
    ]
    found = evaluate(Contrastive(widths=(6, 2)), student, None).total
    torch.testing.assert_close(found, sum(each) / 2)
    with pytest.raises(ModelError, match="widths has 7"):
        evaluate(Contrastive(widths=(7,)), student, None)


def test_a_teacher_of_another_width_is_refused_by_vector_mse() -> None:
    with pytest.raises(ModelError, match="similarity_kl"):
        evaluate(VectorMse(), vectors(0), vectors(1, width=4))


@pytest.mark.parametrize(
    "config",
    [
        Contrastive(),
        Contrastive(symmetric=True, widths=(6, 3)),
        SimilarityKl(),
        Cosine(),
        VectorMse(),
    ],
    ids=lambda config: config.kind,
)
@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_have_value_and_gradient_of_the_whole_batch(
    config: LossConfig, size: int
) -> None:
    student, teacher = vectors(0).requires_grad_(), vectors(1)
    whole = evaluate(config, student, teacher)
    whole.total.backward()
    expected, student.grad = student.grad, None
    loss, counts = TotalLoss([config], "sentence_embedding"), count_units(LABELS, {})
    total = 0.0
    for begin in range(0, B, size):
        rows = slice(begin, min(begin + size, B))

        def of_rows(every: torch.Tensor, rows: slice = rows) -> torch.Tensor:
            return every.view(2, B, D)[:, rows].flatten(0, 1)

        beside = WholeBatch(student.detach(), teacher, TEXTS, begin)
        targets = Targets(LABELS[rows], {}, texts=TEXTS[:, rows], whole=beside)
        part = loss(Outputs(of_rows(student)), Outputs(of_rows(teacher)), targets, counts)
        part.total.backward()
        total += float(part.total.detach())
    assert total == pytest.approx(float(whole.total.detach()), rel=1e-12)
    torch.testing.assert_close(student.grad, expected, rtol=1e-12, atol=1e-14)
