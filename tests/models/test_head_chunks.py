"""A model run up to its head gives the logits that it gives by itself, some rows at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny
from attar.models.head_chunks import has_plain_head, run_to_logits
from attar.numerics.logits import HeadLogits

SCALED = {
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.0625},
    "gemma2": {"final_logit_softcapping": 5.0, "head_dim": 8},
}
"""Families that change what their head gives."""


def _language_model(family: str) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    if family not in SCALED:
        return tiny.tiny_language_model(family)
    drop = ("model_type", "head_dim")
    plain = {k: v for k, v in tiny.tiny_config("llama").to_dict().items() if k not in drop}
    config = CONFIG_MAPPING[family](**(plain | SCALED[family]))
    return AutoModelForCausalLM.from_config(config).eval()


def _inputs(model: Any) -> dict[str, torch.Tensor]:
    batch = tiny.tiny_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = batch["input_ids"][:, :5]
    return inputs


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "bart", "t5", *SCALED])
def test_lazy_logits_are_the_models_own(family: str) -> None:
    model = _language_model(family)
    if family == "bart":
        model.final_logits_bias.normal_()
    inputs = _inputs(model)
    with torch.no_grad():
        raw, logits = run_to_logits(model, inputs, output_hidden_states=True)
        plain = model(**inputs, output_hidden_states=True)
    assert isinstance(logits, HeadLogits) and logits.shape == plain.logits.shape
    every = torch.nonzero(torch.ones(logits.shape[:2]), as_tuple=True)
    torch.testing.assert_close(logits[every].view_as(plain.logits), plain.logits)
    name = "decoder_hidden_states" if model.config.is_encoder_decoder else "hidden_states"
    for own, theirs in zip(raw[name], plain[name], strict=True):
        assert torch.equal(own, theirs)


def _doubled(model: Any) -> Any:
    plain = model.forward

    def doubled(*given: Any, **more: Any) -> Any:
        answer = plain(*given, **more)
        answer.logits = 2 * answer.logits
        return answer

    model.forward = doubled
    return model


def _hooked(model: Any) -> Any:
    model.lm_head.register_forward_hook(lambda *_: None)  # it may want to see all logits
    return model


def _parametrized(model: Any) -> Any:
    torch.nn.utils.parametrizations.weight_norm(model.lm_head)
    return model


@pytest.mark.parametrize("changed", [_doubled, _hooked, _parametrized])
def test_a_head_with_another_way_to_its_logits_gives_them_all(changed: Any) -> None:
    model = changed(_language_model("llama"))
    assert not has_plain_head(model)
    inputs = _inputs(model)
    with torch.no_grad():
        _, logits = run_to_logits(model, inputs)
        assert isinstance(logits, torch.Tensor)
        assert torch.equal(logits, model(**inputs).logits)


def test_a_soft_cap_is_noticed_before_any_logit_is_large() -> None:
    model = tiny.tiny_language_model("gpt2", final_logit_softcapping=30.0)  # GPT-2 caps nothing
    assert model(**_inputs(model)).logits.abs().max() < 1
    assert not has_plain_head(model)


def test_the_trial_leaves_no_trace() -> None:
    model = _language_model("gpt2").train()
    state = torch.get_rng_state()
    assert has_plain_head(model) and model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.lm_head._forward_pre_hooks


def test_under_autocast_products_are_made_in_its_precision() -> None:
    model = _language_model("llama")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, logits = run_to_logits(model, _inputs(model))
        plain = model(**_inputs(model)).logits
    assert isinstance(logits, HeadLogits) and logits.precision == torch.bfloat16
    every = torch.nonzero(torch.ones(logits.shape[:2]), as_tuple=True)
    torch.testing.assert_close(logits[every].view_as(plain), plain.float(), rtol=1e-6, atol=1e-6)


def test_a_classifier_has_its_logits_and_a_model_without_head_has_none() -> None:
    classifier = tiny.tiny_model("bert")
    assert isinstance(run_to_logits(classifier, _inputs(classifier))[1], torch.Tensor)
    assert run_to_logits(classifier.base_model, _inputs(classifier))[1].shape == (3, 0)
