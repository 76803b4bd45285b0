"""Draws from the tail estimate the dense loss and its gradient without bias; a bucket bounds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from attar.numerics.logits import Head, HeadLogits, row_values, with_gradients
from attar.numerics.sparse_distributions import (
    SparseDistributions,
    SparseLogits,
    distributions_of,
    summarized,
    uniforms_of,
)
from tensors_made import Largest

U_VALUES = 60
"""The tail's probabilities are multiples of 1/30 of its mass, so that these stand for all u."""


def told(logits: Tensor, exact: int, uniforms: np.ndarray, *, bucket: bool = False):
    """What a cache says, without the codec's rounding."""
    return distributions_of(summarized(logits, exact, uniforms), is_bucket=bucket)


def student_logits(rows: int, words: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, words, generator=generator, dtype=torch.float64)


def dense(teacher: Tensor, student: Tensor) -> Tensor:
    return -(torch.softmax(teacher, -1) * torch.log_softmax(student, -1)).sum(-1)


@pytest.mark.parametrize("draws", [1, 2, 4])
def test_over_all_draws_loss_and_gradient_are_the_dense_ones(draws: int) -> None:
    p = torch.tensor([20, 14, 6, 2, 9, 7, 3, 3], dtype=torch.float64) / 64
    every = ((np.arange(U_VALUES) + 0.5) / U_VALUES)[:, None].repeat(draws, axis=1)
    # the terms of an estimate add up over its draws, so all may take the same u at a time
    found = told(p.log().expand(U_VALUES, -1), 2, every)
    z = student_logits(1, len(p)).requires_grad_()
    mean = found.cross_entropy(z.expand(U_VALUES, -1)).mean()
    plain = dense(p.log()[None], z).sum()
    assert mean.item() == pytest.approx(plain.item(), abs=1e-6)
    (ours,), (theirs,) = (torch.autograd.grad(each, z) for each in (mean, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_kl_is_unbiased_within_its_standard_error_on_a_long_tail() -> None:
    rows, words = 400, 500
    rank = torch.arange(words, dtype=torch.float64)
    teacher = -torch.log(rank + 5) + student_logits(rows, words, 1) / 2
    student = teacher + student_logits(rows, words, 2) / 4
    uniforms = uniforms_of(3, np.arange(rows).astype(np.uint64), np.arange(rows), 4)
    found = told(teacher, 8, uniforms)
    kl = dense(teacher, student) - dense(teacher, teacher)
    apart = found.forward_kl(student) - kl
    error = float(apart.std()) / rows**0.5
    assert 1e-3 < error < 0.02
    assert abs(float(apart.mean())) < 3 * error


def test_the_kl_of_a_bucket_is_short_by_the_divergence_of_the_tails() -> None:
    teacher, student = student_logits(6, 40, 1), student_logits(6, 40, 2)
    found = told(teacher, 5, np.zeros((6, 0)), bucket=True)
    p, log_q = torch.softmax(teacher, -1), torch.log_softmax(student, -1)
    tail = p.scatter(1, found.ids, 0)
    mass = tail.sum(1, keepdim=True)
    log_q_tail = log_q.scatter(1, found.ids, -torch.inf)
    log_q_tail = log_q_tail - log_q_tail.logsumexp(1, keepdim=True)
    within = torch.where(tail > 0, tail / mass * ((tail / mass).log() - log_q_tail), 0).sum(1)
    kl = dense(teacher, student) - dense(teacher, teacher)
    short = kl - found.forward_kl(student)
    torch.testing.assert_close(short, mass[:, 0] * within, atol=1e-5, rtol=0)
    assert (found.forward_kl(student) >= -1e-6).all() and (found.forward_kl(student) < kl).all()
    at_equality = found.forward_kl(teacher)
    torch.testing.assert_close(at_equality, torch.zeros_like(at_equality), atol=1e-5, rtol=0)


def test_with_all_ids_it_is_the_dense_loss() -> None:
    teacher, student = student_logits(3, 7, 1), student_logits(3, 7, 2)
    found = told(teacher, 7, np.zeros((3, 0)))
    torch.testing.assert_close(
        found.cross_entropy(student), dense(teacher, student), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("bucket", [False, True])
def test_a_tail_without_mass_adds_nothing(bucket: bool) -> None:
    teacher = torch.full((2, 30), -torch.inf, dtype=torch.float64)
    teacher[:, 3:5] = torch.tensor([1.0, 2.0], dtype=torch.float64)
    uniforms = np.zeros((2, 0)) if bucket else np.full((2, 3), 1 - 2**-53)
    found = told(teacher, 4, uniforms, bucket=bucket)
    z = student_logits(2, 30).requires_grad_()
    loss = found.cross_entropy(z)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert gradient.isfinite().all()
    p = torch.softmax(teacher, -1)
    torch.testing.assert_close(loss, -(p * torch.log_softmax(z, -1)).sum(-1), atol=1e-6, rtol=0)


def test_a_draw_is_never_an_exact_id_and_depends_on_its_token_alone() -> None:
    teacher = student_logits(50, 90, 4)
    keys, places = np.arange(50).astype(np.uint64) ** 5, np.arange(50)
    whole = summarized(teacher, 9, uniforms_of(7, keys, places, 6))
    for token in range(50):
        assert not set(whole.ids[token]) & set(whole.draws[token])
    some = np.array([31, 2, 17])
    part = summarized(teacher[some], 9, uniforms_of(7, keys[some], places[some], 6))
    np.testing.assert_array_equal(part.draws, whole.draws[some])
    others = [uniforms_of(8, keys, places, 6), uniforms_of(7, keys + 1, places, 6)]
    others.append(uniforms_of(7, keys, places + 1, 6))
    for uniforms in others:
        assert not np.isin(uniforms, uniforms_of(7, keys, places, 6)).any()
        assert uniforms.min() >= 0 and uniforms.max() < 1


class Told(SparseLogits):
    is_bound = False

    def __init__(self, found: SparseDistributions, shape: tuple[int, int, int]) -> None:
        self.found, self.shape = found, shape

    def __getitem__(self, index: tuple[Tensor, ...]) -> SparseDistributions:
        return self.found[index[0] * self.shape[1] + index[1]]


@pytest.mark.parametrize("bucket", [False, True])
def test_over_a_head_gradients_are_those_of_the_plain_formula_without_all_logits(
    bucket: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, tokens, width, words = 3, 8, 5, 70
    monkeypatch.setattr("attar.numerics.logits.BLOCK_BYTES", 4 * words * 5)
    teacher = student_logits(batch * tokens, words, 1)
    uniforms = np.zeros((len(teacher), 0)) if bucket else np.full((len(teacher), 3), 0.4)
    found = told(teacher, 6, uniforms, bucket=bucket)
    hidden, weight = student_logits(batch * tokens, width, 2), student_logits(words, width, 3)
    hidden = hidden.view(batch, tokens, width).requires_grad_()
    weight.requires_grad_()
    labels = torch.arange(batch * tokens) % words
    index = torch.ones(batch, tokens).nonzero(as_tuple=True)

    def gold(z: Tensor, given: object, labels: Tensor) -> Tensor:
        assert isinstance(given, SparseDistributions)
        return functional.nll_loss(given.log_q(z), labels, reduction="none")

    def taught(z: Tensor, given: object, labels: Tensor) -> Tensor:
        assert isinstance(given, SparseDistributions)
        return given.forward_kl(z)

    head, answers = HeadLogits(Head(weight), hidden), Told(found, (batch, tokens, words))
    with Largest() as seen:
        values, gradients = row_values(
            [gold, taught], index, head, labels, teacher=answers, factors=[0.5, 2.0]
        )
    assert seen.num_bytes <= 8 * words * (width + 1), "a block, or the gradient of the weight"
    total = with_gradients((values.sum(1) * torch.tensor([0.5, 2.0])).sum(), gradients)
    ours = torch.autograd.grad(total, [hidden, weight])

    z = hidden.view(-1, width) @ weight.T
    log_q = torch.log_softmax(z, -1)
    plain = -(found.weights.double() * log_q.gather(1, found.ids)).sum(1)
    if bucket:
        log_tail = torch.log1p(-log_q.gather(1, found.ids).exp().sum(1))
        plain = plain - found.bucket * log_tail
    plain = plain + found.constant
    torch.testing.assert_close(values[1], plain)
    whole = 0.5 * functional.cross_entropy(z, labels, reduction="sum") + 2 * plain.sum()
    for one, other in zip(ours, torch.autograd.grad(whole, [hidden, weight]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
