"""A training step of language models makes no tensor of all logits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import attar.numerics.logits
import tiny
from attar.losses.config import CrossEntropy, ForwardKl, HiddenMse, LossConfig, ReverseKl
from attar.losses.targets import Targets, count_units
from attar.losses.term import Needs, Pair
from attar.losses.total import TotalLoss
from attar.models.head_chunks import has_plain_head
from attar.training.forward import forward, shape_of, stacks_of
from tensors_made import Largest

B, T, V = 6, 30, 3000
BLOCK = 8
"""Rows: 24,000 logits of 540,000."""


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(attar.numerics.logits, "BLOCK_BYTES", BLOCK * 4 * V)
    yield


def gradients(
    family: str, losses: list[LossConfig], *, lazy: bool, bf16: bool = False
) -> tuple[int, list[Tensor]]:
    """The largest tensor of a step, and the gradients of the student's parameters."""
    student, teacher = (
        tiny.tiny_language_model(family, seed=seed, vocab_size=V).to(
            torch.float32 if bf16 else torch.float64
        )
        for seed in (0, 1)
    )
    for model in (student, teacher):
        assert has_plain_head(model)
        if not lazy:
            model.get_output_embeddings().register_forward_hook(lambda *_: None)
    ids = torch.randint(3, V, (B, T), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if student.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    targets = Targets(ids, dict.fromkeys(stacks_of(student), torch.ones_like(ids)))
    pair = Pair(shape_of(student), shape_of(teacher))
    loss = TotalLoss(losses, "causal_lm", pair).to(student.dtype)
    counts = count_units(ids, dict.fromkeys(pair.student, ids.numel()))
    with Largest() as seen:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                taught = forward(teacher, inputs, loss.needs)
            given = forward(student, inputs, loss.needs)
        loss(given, taught, targets, counts).total.backward()
    return seen.num_bytes, [p.grad for p in student.parameters() if p.grad is not None]


LOSSES: list[LossConfig] = [
    CrossEntropy(weight=0.5),
    ForwardKl(temperature=2),
    ReverseKl(),
    HiddenMse(weight=3),
]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("family", ["gpt2", "qwen3", "t5", "bart"])
def test_a_step_holds_no_more_than_a_block_and_has_the_gradients_of_whole_logits(
    family: str,
) -> None:
    most, found = gradients(family, LOSSES, lazy=True)
    whole, wanted = gradients(family, LOSSES, lazy=False)
    assert most <= V * 32 * 8 < B * T * V * 8 <= whole, (
        "the head's weight and its gradient are the largest"
    )
    assert len(found) == len(wanted) > 0
    for own, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-11, atol=1e-14)


@pytest.mark.usefixtures("_small_blocks")
def test_in_bf16_a_step_has_the_gradients_of_whole_logits_to_its_digits() -> None:
    _, found = gradients("qwen3", LOSSES, lazy=True, bf16=True)
    _, wanted = gradients("qwen3", LOSSES, lazy=False, bf16=True)
    for own, plain in zip(found, wanted, strict=True):
        assert own.dtype == torch.float32
        assert (own - plain).norm() <= 0.01 * plain.norm()


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_no_keys_and_values_are_kept(family: str) -> None:
    model, kept = tiny.tiny_language_model(family), []
    model.register_forward_hook(lambda _, __, raw: kept.append(raw.past_key_values))
    ids = torch.randint(3, tiny.VOCABULARY, (2, 5))
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if family == "t5" else {})
    forward(model, inputs, Needs())
    assert kept[-1] is None
