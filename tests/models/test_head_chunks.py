"""A head in chunks gives what the whole tensor of logits gives, and its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import attar.models.head_chunks as head_chunks
import tiny
from attar.errors import ModelError
from attar.models.head_chunks import (
    head_of,
    last_hidden_states,
    log_probabilities,
    require_own_logits,
)

TOKENS, HIDDEN, VOCABULARY = 37, 16, 50


@pytest.fixture(params=[1, 7, 1000], ids=lambda tokens: f"{tokens} tokens a chunk")
def _chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_chunks, "CHUNK_BYTES", request.param * 4 * VOCABULARY)


def _drawn(seed: int) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(HIDDEN, VOCABULARY).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=generator)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64)
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    return head, hidden.requires_grad_(), targets


@pytest.mark.usefixtures("_chunk")
def test_log_probabilities_and_gradients_are_those_of_all_logits() -> None:
    head, hidden, targets = _drawn(0)
    weights = torch.arange(1.0, TOKENS + 1)
    made = []
    for chunked in (True, False):
        hidden.grad = head.weight.grad = None
        if chunked:
            found = log_probabilities(head, hidden, targets, VOCABULARY)
        else:
            found = torch.log_softmax(head(hidden).float(), -1).gather(1, targets[:, None])[:, 0]
        (found * weights).sum().backward()
        made.append((found.detach(), hidden.grad, head.weight.grad))
    for chunked, plain in zip(*made, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-5)


SCALED = {
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.0625},
    "gemma2": {"final_logit_softcapping": 5.0, "head_dim": 8},
}
"""Families that change what their head gives."""


def _language_model(family: str) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config: Any = tiny.tiny_config("llama" if family in SCALED else family)
    if family in SCALED:
        plain = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "head_dim")}
        config = CONFIG_MAPPING[family](**(plain | SCALED[family]))
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", *SCALED])
def test_hidden_states_through_the_head_are_the_models_logits(family: str) -> None:
    model = _language_model(family)
    batch = tiny.tiny_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    require_own_logits(model, inputs["input_ids"][:1])
    with torch.no_grad():
        found = head_of(model)(last_hidden_states(model, inputs))
        torch.testing.assert_close(found, model(**inputs).logits)


def test_a_model_with_another_way_to_its_logits_is_refused() -> None:
    model = _language_model("llama")
    plain = model.forward

    def doubled(*given: Any, **more: Any) -> Any:
        answer = plain(*given, **more)
        answer.logits = 2 * answer.logits
        return answer

    model.forward = doubled
    with pytest.raises(ModelError, match="not known here"):
        require_own_logits(model, tiny.tiny_batch()["input_ids"][:1])
