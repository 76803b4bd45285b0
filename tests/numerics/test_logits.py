"""Row-wise functions over a head have the values and gradients that whole logits have, and whole
logits never exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import attar.numerics.logits as module
from attar.losses.predictions import forward_kl
from attar.numerics.logits import (
    Head,
    HeadLogits,
    Logits,
    log_probabilities,
    row_values,
    with_gradients,
)
from tensors_made import Largest

ROUNDING = 1e-12
"""float64 sums in another order."""
B, S, D, V = 3, 13, 8, 50
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "scaled": {"scale": 0.125},
    "capped": {"bias": True, "scale": 2.0, "cap": 3.0},
}
FACTORS = (0.7, 2.0)


def nats(made: Tensor, _: Tensor | None, labels: Tensor) -> Tensor:
    return functional.cross_entropy(made, labels, reduction="none")


def divergence(made: Tensor, taught: Tensor | None, _: Tensor) -> Tensor:
    assert taught is not None
    return forward_kl(made, taught, 2.0)


def drawn(*size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def head(kind: str, seed: int, dtype: torch.dtype = torch.float64) -> Head:
    settings = dict(HEADS[kind])
    if settings.pop("bias", False):
        settings["bias"] = drawn(V, seed=seed + 1, dtype=dtype)
    return Head(drawn(V, D, seed=seed, dtype=dtype), **settings)


def leaves_(made: HeadLogits) -> list[Tensor]:
    every = (made.hidden, made.head.weight, made.head.bias)
    return [x.requires_grad_() for x in every if x is not None]


INDEX = torch.nonzero(drawn(B, S, seed=9) > -0.5, as_tuple=True)
LABELS = torch.arange(len(INDEX[0])) % V


def whole(made: HeadLogits) -> Tensor:
    """All logits, by the formula."""
    logits = made.hidden @ made.head.weight.t()
    logits = logits if made.head.bias is None else logits + made.head.bias
    logits = made.head.scale * logits
    cap = made.head.cap
    return logits if cap is None else cap * torch.tanh(logits / cap)


@pytest.fixture(params=[1, 7, 1000], ids=lambda rows: f"{rows} rows a block")
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", request.param * 4 * V)
    monkeypatch.setattr(module, "CACHED_VALUES", 3 * V)


def evaluated(logits: Logits, teacher: Logits) -> tuple[Tensor, Tensor]:
    """The values, and their weighted sum with its gradient."""
    values, gradients = row_values(
        [nats, divergence], INDEX, logits, LABELS, teacher=teacher, factors=FACTORS
    )
    total = sum(factor * value.sum() for factor, value in zip(FACTORS, values, strict=True))
    return values, with_gradients(total, gradients)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize("kind", HEADS)
def test_values_and_gradients_are_those_of_whole_logits(kind: str) -> None:
    teacher = HeadLogits(head("bias", 7), drawn(B, S, D, seed=8))
    made = HeadLogits(head(kind, 1), drawn(B, S, D, seed=3))
    leaves = leaves_(made)
    values, total = evaluated(made, teacher)
    found = torch.autograd.grad(3 * total, leaves)
    rows = whole(made)[INDEX]
    wanted = [nats(rows, None, LABELS), divergence(rows, whole(teacher)[INDEX], LABELS)]
    summed = sum(factor * value.sum() for factor, value in zip(FACTORS, wanted, strict=True))
    torch.testing.assert_close(values, torch.stack(wanted).detach(), rtol=ROUNDING, atol=ROUNDING)
    for own, plain in zip(found, torch.autograd.grad(3 * summed, leaves), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(own, plain, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(made[INDEX], rows, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.usefixtures("_block")
def test_logits_that_are_there_have_the_same_gradient() -> None:
    teacher = drawn(B, S, V, seed=2)
    logits = drawn(B, S, V, seed=1).requires_grad_()
    _, total = evaluated(logits, teacher)
    (found,) = torch.autograd.grad(total, logits)
    rows = logits[INDEX]
    summed = FACTORS[0] * nats(rows, None, LABELS).sum()
    summed = summed + FACTORS[1] * divergence(rows, teacher[INDEX], LABELS).sum()
    (wanted,) = torch.autograd.grad(summed, logits)
    torch.testing.assert_close(found, wanted, rtol=ROUNDING, atol=ROUNDING)


def test_an_embedding_that_is_the_head_too_gets_the_gradient_of_both_uses() -> None:
    table = drawn(V, D, seed=1).requires_grad_()
    ids = torch.arange(B * S).view(B, S) % V
    found = []
    for lazy in (True, False):
        hidden = torch.tanh(table[ids])
        if lazy:
            _, total = evaluated(HeadLogits(Head(table), hidden), drawn(B, S, V, seed=2))
        else:
            _, total = evaluated(hidden @ table.t(), drawn(B, S, V, seed=2))
        found.append(torch.autograd.grad(total, table)[0])
    torch.testing.assert_close(*found, rtol=ROUNDING, atol=ROUNDING)


def test_what_is_frozen_gets_no_gradient_and_without_factors_nothing_does() -> None:
    made = HeadLogits(head("bias", 1), drawn(B, S, D, seed=3).requires_grad_())
    _, gradients = row_values([nats], INDEX, made, LABELS, factors=[1.0])
    assert [tuple(tensor.shape) for tensor, _ in gradients] == [(len(LABELS), D)]
    assert row_values([nats], INDEX, made, LABELS)[1] == []
    with torch.no_grad():
        assert row_values([nats], INDEX, made, LABELS, factors=[1.0])[1] == []


@pytest.mark.usefixtures("_block")
def test_in_bf16_only_the_products_are_rounded() -> None:
    made = HeadLogits(
        head("plain", 1, torch.float32),
        drawn(B, S, D, seed=3, dtype=torch.float32),
        torch.bfloat16,
    )
    leaves = leaves_(made)
    values, gradients = row_values([nats], INDEX, made, LABELS, factors=[1.0])
    with torch.autocast("cpu", torch.bfloat16):
        products = functional.linear(made.hidden, made.head.weight)
    assert products.dtype == torch.bfloat16 and values.dtype == torch.float32
    wanted = nats(products.float()[INDEX], None, LABELS)
    torch.testing.assert_close(values[0], wanted.detach(), rtol=1e-6, atol=1e-6)
    found = torch.autograd.grad(with_gradients(values.sum(), gradients), leaves)
    for own, plain in zip(found, torch.autograd.grad(wanted.sum(), leaves), strict=True):
        assert own.dtype == torch.float32
        assert (own - plain).norm() < 0.01 * plain.norm()  # 8 bits, in another order


def _loss(made: HeadLogits) -> None:
    _, total = evaluated(made, HeadLogits(head("plain", 5), drawn(B, S, D, seed=6)))
    total.backward()


def _likelihoods(made: HeadLogits) -> None:
    log_probabilities(made, INDEX, LABELS)


@pytest.mark.parametrize("work", [_loss, _likelihoods])
def test_no_tensor_is_larger_than_a_block_or_the_weight(
    work: Callable[[HeadLogits], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 5 * 4 * V)
    made = HeadLogits(head("plain", 1), drawn(B, S, D, seed=3))
    leaves_(made)
    with Largest() as seen:
        work(made)
    assert 5 * V * 8 <= seen.num_bytes <= max(V * D, B * S * D) * 8 < len(LABELS) * V * 8


def test_log_probabilities_are_those_of_the_targets() -> None:
    made = HeadLogits(head("capped", 1), drawn(B, S, D, seed=3))
    wanted = whole(made)[INDEX].log_softmax(-1).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(log_probabilities(made, INDEX, LABELS), wanted)


def test_fewer_columns_are_those_of_the_first_words() -> None:
    made = HeadLogits(head("bias", 1), drawn(B, S, D, seed=3))
    assert made.first(20).shape == (B, S, 20)
    torch.testing.assert_close(made.first(20)[INDEX], made[INDEX][:, :20])
