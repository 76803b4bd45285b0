"""The two stages of writing compute what the whole model computes, every time they are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

import tiny
from attar.models.stages import stages_of

ROUNDING = 1e-5
"""One token after the others sums in another order than all at once."""
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma"])
def test_a_step_of_a_decoder_is_the_next_token_behind_the_text(family: str) -> None:
    model = tiny.tiny_language_model(family)
    stages = stages_of(model, IDS, torch.ones_like(IDS))
    assert stages is not None
    again = torch.cat([IDS, IDS[:, -1:]], dim=1)
    with torch.no_grad():
        read, written = model(IDS).logits[:, -1], model(again).logits[:, -1]
    torch.testing.assert_close(stages.prefill(), read, atol=ROUNDING, rtol=0)
    for _ in range(3):
        torch.testing.assert_close(stages.decode_step(), written, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_step_behind_an_encoder_is_the_one_after_the_start_token(family: str) -> None:
    model = tiny.tiny_language_model(family)
    stages: Any = stages_of(model, IDS, torch.ones_like(IDS))
    with torch.no_grad():
        encoded = model.get_encoder()(IDS).last_hidden_state
        written = model(IDS, decoder_input_ids=torch.ones(2, 2, dtype=torch.int64)).logits[:, 1:]
    assert torch.equal(stages.prefill().last_hidden_state, encoded)
    for _ in range(3):
        torch.testing.assert_close(stages.decode_step(), written, atol=ROUNDING, rtol=0)


def test_a_full_window_and_a_state_move_on_at_the_same_size() -> None:
    llama = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    window = hf.MistralForCausalLM(hf.MistralConfig(**llama, **heads, sliding_window=4)).eval()
    state = hf.MambaForCausalLM(hf.MambaConfig(**llama, state_size=4)).eval()
    for model in (window, state):
        stages: Any = stages_of(model, IDS, torch.ones_like(IDS))
        for _ in range(3):
            assert stages.decode_step().isfinite().all()


def test_a_model_that_keeps_nothing_has_no_steps() -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "vocab_size": 60}
    model = hf.OpenAIGPTLMHeadModel(hf.OpenAIGPTConfig(**sizes)).eval()
    assert stages_of(model, IDS, torch.ones_like(IDS)) is None
