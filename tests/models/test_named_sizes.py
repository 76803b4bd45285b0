"""A named size has the parameters its name says, in every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import corpora
from attar.models.config import FromConfig, ModelReference
from attar.models.cost import Head, cost_from_config
from attar.models.load import build_model
from attar.models.named_sizes import (
    DECODER_SIZES,
    ENCODER_DECODER_SIZES,
    FAMILIES_OF_SIZES,
    LEARNED_POSITIONS,
    config_of_size,
)
from attar.tasks.table import CAUSAL_LM, TEXT_TO_TEXT

MILLIONS = {
    **{"pico": 0.8, "nano": 2.65, "micro": 7.43},
    **{"104M": 25.7, "200M": 86.7, "300M": 130, "500M": 308, "1.2B": 694},
}
"""Outside the embeddings."""
QWEN_TOTALS = {"104M": 103.5, "200M": 203, "300M": 247, "500M": 464, "1.2B": 1160}
QWEN_VOCABULARY = 151_936


DECODERS = [name for name, row in FAMILIES_OF_SIZES.items() if row.sizes is DECODER_SIZES]


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("size", ["pico", "nano", "micro", "104M"])
def test_families_of_a_size_have_as_many_parameters(size: str, family: str) -> None:
    total = cost_from_config({**config_of_size(size, family), "vocab_size": 300}).num_params
    positions = LEARNED_POSITIONS if family == "gpt2" else 0
    inside = total - (300 + positions) * DECODER_SIZES[size].hidden_size
    apart = 0.05 if family.startswith("mamba") else 0.02  # half a block of at least six
    assert inside / 1e6 == pytest.approx(MILLIONS[size], rel=apart)


def test_every_size_is_as_large_as_its_comment_says() -> None:
    for name, size in DECODER_SIZES.items():
        width, ffn = size.hidden_size, size.intermediate_size
        inside = size.num_hidden_layers * (4 * width**2 + 3 * width * ffn)
        assert size.num_matrix_weights == inside
        assert inside / 1e6 == pytest.approx(MILLIONS[name], rel=0.01)
        assert width % size.num_attention_heads == 0
        if name in QWEN_TOTALS:
            tables = 1 if size.tie_word_embeddings else 2
            total = inside + tables * QWEN_VOCABULARY * width
            assert total / 1e6 == pytest.approx(QWEN_TOTALS[name], rel=0.005)


@pytest.mark.parametrize("family", DECODERS)
def test_a_head_is_tied_where_the_size_says_so(family: str) -> None:
    for size in ("nano", "1.2B"):
        reference = FromConfig(size=size, family=family, tokenizer="words")
        fewer, more = (
            cost_from_config(reference.plain(count, 0), Head(None, CAUSAL_LM)).num_params
            for count in (1000, 1001)
        )
        tables = 1 if DECODER_SIZES[size].tie_word_embeddings else 2
        assert more - fewer == tables * DECODER_SIZES[size].hidden_size


T5_VOCABULARY = 32_128
T5_MILLIONS = {
    **{"tiny-32": 14.0, "mini-32": 26.5, "small-32": 51.1, "base-32": 180.4},
    **{"tiny-64": 15.6, "mini-64": 31.2, "small-64": 60.5, "base-64": 222.9, "nano": 5.0},
}
"""UCB/EECS-2023-141, Table 3.1, prints 16, 31, 60 and 220 M, which are those of heads of 64."""


@pytest.mark.parametrize("size", ENCODER_DECODER_SIZES)
def test_a_size_of_t5_has_the_published_parameters_of_its_head_size(size: str) -> None:
    reference = FromConfig(size=size, family="t5", tokenizer="words")
    model = cost_from_config(reference.plain(T5_VOCABULARY, 1), Head(None, TEXT_TO_TEXT)).model
    counted = {name: weight.numel() for name, weight in model.named_parameters()}
    assert sum(counted.values()) / 1e6 == pytest.approx(T5_MILLIONS[size], abs=0.06)
    shape = ENCODER_DECODER_SIZES[size]
    inner = shape.num_attention_heads * shape.head_size
    width, blocks = shape.hidden_size, shape.num_hidden_layers
    one_block = 4 * width * inner + 2 * width * shape.intermediate_size + 2 * width
    cross = 4 * width * inner + width
    biases, norms = 2 * 32 * shape.num_attention_heads, 2 * width
    body = blocks * (2 * one_block + cross) + biases + norms
    assert sum(counted.values()) == T5_VOCABULARY * width + body
    assert not any(name.endswith(".bias") for name in counted)


def test_a_model_has_the_tokenizers_tokens_and_its_end(tmp_path: Path) -> None:
    words = corpora.write_tokenizer(tmp_path / "words").get_vocab_size()
    small = {"n_embd": 16, "n_inner": 24, "n_layer": 1, "n_head": 2}
    reference = FromConfig(size="pico", family="gpt2", config=small, tokenizer="words")
    config = build_model(reference, {}, tmp_path, None, 0).model.config
    assert (config.vocab_size, config.eos_token_id, config.bos_token_id) == (words, 0, 0)
    assert (config.n_embd, config.n_positions) == (16, 1024)
    own = {**small, "vocab_size": words + 8}
    wider = FromConfig(size="pico", family="gpt2", config=own, tokenizer="words")
    assert wider.plain(words)["vocab_size"] == words + 8


def test_a_config_without_a_vocabulary_takes_the_tokenizers(tmp_path: Path) -> None:
    words = corpora.write_tokenizer(tmp_path / "words").get_vocab_size()
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    reference = FromConfig(
        config={"model_type": "llama", **shape, "num_attention_heads": 2}, tokenizer="words"
    )
    assert build_model(reference, {}, tmp_path, None, 0).model.config.vocab_size == words


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"size": "nanno", "family": "llama"}, "did you mean 'nano'"),
        ({"size": "nano", "family": "lama"}, "did you mean 'llama'"),
        ({"size": "nano"}, "needs a family"),
        ({"size": "nanno"}, "did you mean 'nano'"),
        ({"size": "tiny-64", "family": "llama"}, "size of llama must be one of pico"),
        ({"size": "tiny", "family": "t5"}, "did you mean 'tiny-"),
        ({"family": "llama"}, "needs a size"),
        ({"size": "nano", "family": "llama", "config": {"model_type": "t5"}}, "remove config.mod"),
        ({"size": "nano", "family": "llama", "tokeniser": "a"}, "Extra inputs"),
    ],
)
def test_mistakes_in_a_named_size_are_told_apart(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(ModelReference).validate_json(json.dumps({"tokenizer": "words", **table}))
