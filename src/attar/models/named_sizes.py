"""Decoder sizes by name, and the Hugging Face config of each in every family. Imports no torch.

    { size = "104M", family = "qwen2", tokenizer = "corpus" }

A size is a shape; a family says which fields spell it. All families of a size have the same number
of parameters outside the embeddings, up to norms and biases: a gated FFN has three matrices, and
GPT-2's, which has two, is half as wide again.

The vocabulary is the tokenizer's, so a size has no total of its own. The names 104M to 1.2B are
those of MiniPLM (arXiv 2410.17215), which count Qwen's 151,936 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ROTARY_POSITIONS = 8192
"""Rotary positions have no table, so a high limit costs nothing; train steps read no more."""
LEARNED_POSITIONS = 1024
"""Rows of a learned table: MiniPLM's length."""


@dataclass(frozen=True)
class DecoderSize:
    """A shape: the widths of every block, and their number."""

    hidden_size: int
    intermediate_size: int
    """Of a gated FFN."""
    num_hidden_layers: int
    num_attention_heads: int
    tie_word_embeddings: bool = True
    """The head is the embedding table."""


SIZES: Mapping[str, DecoderSize] = {
    # for corpora of a few million tokens; heads of 32
    "pico": DecoderSize(128, 352, 4, 4),  # 0.8 M outside the embeddings
    "nano": DecoderSize(192, 512, 6, 6),  # 2.7 M
    "micro": DecoderSize(320, 864, 6, 10),  # 7.4 M
    # arXiv 2410.17215; tied or not as the names' totals have it: 103.5, 203, 247, 464 and 1,160 M
    "104M": DecoderSize(512, 1408, 8, 8),  # 25.7 M
    "200M": DecoderSize(768, 2112, 12, 12),  # 86.7 M
    "300M": DecoderSize(768, 2112, 18, 12),  # 130 M
    "500M": DecoderSize(1024, 2816, 24, 16),  # 308 M
    "1.2B": DecoderSize(1536, 4224, 24, 16, tie_word_embeddings=False),  # 694 M
}


def _gated(size: DecoderSize) -> dict[str, Any]:
    return {
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.num_hidden_layers,
        "num_attention_heads": size.num_attention_heads,
        "num_key_value_heads": size.num_attention_heads,
        "max_position_embeddings": ROTARY_POSITIONS,
    }


def _gpt2(size: DecoderSize) -> dict[str, Any]:
    return {
        "n_embd": size.hidden_size,
        "n_inner": size.intermediate_size * 3 // 2,
        "n_layer": size.num_hidden_layers,
        "n_head": size.num_attention_heads,
        "n_positions": LEARNED_POSITIONS,
    }


FAMILIES_OF_SIZES: Mapping[str, Callable[[DecoderSize], dict[str, Any]]] = {
    "llama": _gated,
    "qwen2": _gated,
    "gpt2": _gpt2,
}


def config_of_size(size: str, family: str) -> dict[str, Any]:
    """The config of a named size, without its vocabulary."""
    shape = SIZES[size]
    return {
        "model_type": family,
        **FAMILIES_OF_SIZES[family](shape),
        "tie_word_embeddings": shape.tie_word_embeddings,
    }
