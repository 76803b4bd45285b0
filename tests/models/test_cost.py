"""Parameters and operations, against torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch.utils.flop_counter import FlopCounterMode

import tiny
from attar.errors import ModelError
from attar.models.cost import (
    Cost,
    Head,
    cost_from_config,
    counted_flops,
    flops,
    flops_by_part,
    num_params,
    params_by_part,
)
from attar.models.named_sizes import config_of_size


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny.tiny_model(request.param)


def counted(model: Any, batch: int, tokens: int) -> int:
    ids = torch.full((batch, tokens), 5)
    ids[:, -1] = tiny.EOS
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return counter.get_total_flops()


def test_flops_equal_those_torch_counts(model: Any) -> None:
    assert flops(model, 3, 13) == counted(model, 3, 13)


def test_flops_of_one_text_equal_those_torch_counts() -> None:
    model = tiny.tiny_model("bert")
    assert flops(model, 1, 8) == counted(model, 1, 8)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_flops_of_bare_models_are_the_same_sums(name: str) -> None:
    bare = tiny.tiny_model(name, bare=True)
    assert flops(bare, 2, 7) == counted(bare, 2, 7)


@pytest.mark.parametrize(
    ("family", "model_class"),
    [
        ("bert", hf.BertForMaskedLM),
        ("gpt2", hf.GPT2LMHeadModel),
        ("llama", hf.LlamaForCausalLM),
    ],
)
def test_a_language_head_works_on_every_token(family: str, model_class: Any) -> None:
    model = model_class(tiny.tiny_config(family, attn_implementation="eager")).eval()
    assert flops(model, 2, 7) == counted(model, 2, 7)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_encoder_and_decoder_are_counted_apart(family: str) -> None:
    """The decoder's cross-attention maps what the encoder read."""
    model = tiny.tiny_language_model(family, attn_implementation="eager")
    ids, fed = torch.full((2, 13), 5), torch.full((2, 4), 5)
    with FlopCounterMode(display=False) as both, torch.no_grad():
        model(input_ids=ids, decoder_input_ids=fed, use_cache=False)
    with FlopCounterMode(display=False) as encoder, torch.no_grad():
        model.get_encoder()(input_ids=ids)
    parts = flops_by_part(model, 2, 13, 4)
    assert sum(parts.values()) == both.get_total_flops() == flops(model, 2, 13, 4)
    assert counted_flops(model, 2, 13, 4) == both.get_total_flops()
    assert parts["encoder"] == encoder.get_total_flops()


def test_parameters_add_up_part_by_part(model: Any) -> None:
    parts = params_by_part(model)
    assert sum(parts.values()) == num_params(model)
    blocks = ("attention", ".ffn", ".norms")
    assert all(parts[name] > 0 for name in parts if name.endswith(blocks))


VARIANTS = {"own": None, "skip": {"variant": "skip"}, "1w": {"variant": "1w"}} | {
    name: {"variant": name, "expansion": 2} for name in ("1w_relu", "2w", "3w")
}


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_what_a_backward_pass_keeps_follows_the_feed_forward(family: str) -> None:
    """Planned about as much as autograd keeps of two blocks more, or more; of a chain,
    what each map more reads exactly."""
    tokens = 30
    planned: dict[str, int] = {}
    kept: dict[str, float] = {}
    for name, variant in VARIANTS.items():
        small, big = (
            tiny.tiny_model(family, blocks=blocks, bare=True, attar_ffn=variant)
            for blocks in (2, 4)
        )
        planned[name] = Cost(big).kept_floats(tokens) - Cost(small).kept_floats(tokens)
        kept[name] = (tiny.saved_bytes(big, tokens) - tiny.saved_bytes(small, tokens)) / 4
        assert 0.9 * kept[name] <= planned[name] < 2 * kept[name], name
    for more, fewer in (("1w_relu", "1w"), ("2w", "1w"), ("3w", "2w")):
        assert planned[more] - planned[fewer] == kept[more] - kept[fewer] > 0


def test_parts_of_a_t5_are_those_of_its_formula() -> None:
    """UCB/EECS-2023-141, Tiny with heads of 32: the FFN is half of what is no embedding."""
    cost = cost_from_config(
        {
            **config_of_size("tiny-32", "t5"),
            "vocab_size": 32_128,
            "architectures": ["T5ForConditionalGeneration"],
        }
    )
    d, f, inner, blocks, biases = 256, 1024, 128, 4, 32 * 4
    assert params_by_part(cost.model) == {
        "embeddings": 32_128 * d,
        "encoder.attention": blocks * 4 * d * inner + biases,
        "encoder.ffn": blocks * 2 * d * f,
        "encoder.norms": (2 * blocks + 1) * d,
        "decoder.attention": blocks * 4 * d * inner + biases,
        "decoder.cross_attention": blocks * 4 * d * inner,
        "decoder.ffn": blocks * 2 * d * f,
        "decoder.norms": (3 * blocks + 1) * d,
        "head": 0,
    }


def test_parameters_of_a_bert_are_those_of_the_formula() -> None:
    vocabulary, d, f, blocks, positions, labels = tiny.VOCABULARY, 32, 48, 2, 40, 3
    parts = (
        (vocabulary + positions + 2) * d,  # embeddings
        blocks * 4 * (d * d + d),  # attention
        blocks * (2 * d * f + f + d),  # feed-forward
        (1 + 2 * blocks) * 2 * d,  # norms
        d * d + d + d * labels + labels,  # head
    )
    assert num_params(tiny.tiny_model("bert")) == sum(parts)


def test_a_tied_weight_counts_once() -> None:
    from transformers import GPT2LMHeadModel

    tied = GPT2LMHeadModel(tiny.tiny_config("gpt2"))
    assert num_params(tied) == num_params(tied.transformer)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_cost_from_a_config_equals_that_of_the_built_model(name: str) -> None:
    model = tiny.tiny_model(name)
    planned = cost_from_config(model.config.to_dict(), Head(3))
    assert planned.num_params == num_params(model)
    assert planned.flops(2, 10) == flops(model, 2, 10)
    assert all(parameter.is_meta for parameter in planned.model.parameters())


def test_a_head_for_one_number_is_planned_as_it_is_built() -> None:
    config = tiny.tiny_config("bert", num_labels=1)
    planned = cost_from_config(config.to_dict(), Head(1))
    built = tiny.tiny_model("bert", num_labels=1)
    assert planned.num_params == num_params(built)
    assert planned.model.config.problem_type == "regression"


def test_the_published_size_of_bert_base_is_found_without_weights() -> None:
    cost = cost_from_config({"model_type": "bert"}, Head(2))
    assert cost.num_params == 109_483_778
    # 85 M block weights and attention over 128 tokens, 2 operations each, then pooler and head
    attention = 12 * 4 * 128 * 128 * 768
    blocks = 12 * 2 * 128 * (4 * 768**2 + 2 * 768 * 3072)
    assert cost.flops(1, 128) == blocks + attention + 2 * (768**2 + 768 * 2)


def test_an_unknown_config_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'birt' are not supported.*did you mean 'bert'"):
        cost_from_config({"model_type": "birt"}, Head(2))
