"""Model sizes by name, and the Hugging Face config of each in every family. Imports no torch.

    { size = "104M", family = "qwen2", tokenizer = "corpus" }
    { size = "tiny-64", family = "t5", tokenizer = "corpus" }

A size is a shape; a family defines its sizes and their config fields.

Decoders: all families of a size have about the same number of parameters outside the embeddings. A
gated FFN has three matrices; GPT-2's has two and is 1.5 times as wide. A Mamba block is only a
mixer, about half of a transformer block, so the number of blocks is chosen to come closest to the
size. The names 104M to 1.2B are those of MiniPLM (arXiv 2410.17215), which count Qwen's 151,936
tokens.

Encoder-decoders: the names are those of UCB/EECS-2023-141, with the head size after them. Its
Table 3.1 gives heads of 32 to Tiny, Mini and Small, and the parameters of heads of 64.

The vocabulary is the tokenizer's, so a size has no fixed total.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Size = TypeVar("Size")

ROTARY_POSITIONS = 8192
"""Rotary positions need no table, so a high limit costs nothing; train steps use shorter texts."""
LEARNED_POSITIONS = 1024
"""Number of rows in a learned table of positions: MiniPLM's length."""
EXPAND, CONV_KERNEL, STATE_SIZE = 2, 4, 16
"""Mamba's (arXiv 2312.00752)."""
STATE_SIZE_2, HEAD_SIZE_2 = 128, 64
"""Mamba-2's (arXiv 2405.21060), with one group."""


@dataclass(frozen=True)
class DecoderSize:
    """A shape: the widths of every block, and the number of blocks."""

    hidden_size: int
    intermediate_size: int
    """For a gated FFN."""
    num_hidden_layers: int
    num_attention_heads: int
    tie_word_embeddings: bool = True
    """Whether the head shares the embedding table."""

    @property
    def num_matrix_weights(self) -> int:
        """Number of weights outside the embeddings: four square maps and a gated FFN in every
        block.
        """
        width, ffn = self.hidden_size, self.intermediate_size
        return self.num_hidden_layers * (4 * width**2 + 3 * width * ffn)


DECODER_SIZES: Mapping[str, DecoderSize] = {
    # for corpora of a few million tokens; heads of 32
    "pico": DecoderSize(128, 352, 4, 4),  # 0.8 M outside the embeddings
    "nano": DecoderSize(192, 512, 6, 6),  # 2.7 M
    "micro": DecoderSize(320, 864, 6, 10),  # 7.4 M
    # arXiv 2410.17215; tied or not so that totals fit the names: 103.5, 203, 247, 464 and 1,160 M
    "104M": DecoderSize(512, 1408, 8, 8),  # 25.7 M
    "200M": DecoderSize(768, 2112, 12, 12),  # 86.7 M
    "300M": DecoderSize(768, 2112, 18, 12),  # 130 M
    "500M": DecoderSize(1024, 2816, 24, 16),  # 308 M
    "1.2B": DecoderSize(1536, 4224, 24, 16, tie_word_embeddings=False),  # 694 M
}


@dataclass(frozen=True)
class EncoderDecoderSize:
    """A shape: the widths of every block, and the number of blocks."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    """Of the encoder, and also of the decoder."""
    num_attention_heads: int
    head_size: int
    """The heads together may be wider or narrower than the hidden size."""


_T5_SHAPES = {
    "tiny": (256, 1024, 4, 4),  # 14.0 M parameters with heads of 32, 15.6 M with heads of 64
    "mini": (384, 1536, 4, 8),  # 26.5 M and 31.2 M
    "small": (512, 2048, 6, 8),  # 51.1 M and 60.5 M
    "base": (768, 3072, 12, 12),  # 180.4 M and 222.9 M
}
"""Counts are for T5's 32,128 tokens."""
ENCODER_DECODER_SIZES: Mapping[str, EncoderDecoderSize] = {
    "nano": EncoderDecoderSize(128, 512, 2, 4, 32),  # 0.9 M outside the embeddings
    **{
        f"{name}-{head_size}": EncoderDecoderSize(*shape, head_size)
        for name, shape in _T5_SHAPES.items()
        for head_size in (32, 64)
    },
}


def _gated(size: DecoderSize) -> dict[str, Any]:
    return {
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.num_hidden_layers,
        "num_attention_heads": size.num_attention_heads,
        "num_key_value_heads": size.num_attention_heads,
        "max_position_embeddings": ROTARY_POSITIONS,
        "tie_word_embeddings": size.tie_word_embeddings,
    }


def _qwen3(size: DecoderSize) -> dict[str, Any]:
    return {**_gated(size), "head_dim": size.hidden_size // size.num_attention_heads}


def _gpt2(size: DecoderSize) -> dict[str, Any]:
    return {
        "n_embd": size.hidden_size,
        "n_inner": size.intermediate_size * 3 // 2,
        "n_layer": size.num_hidden_layers,
        "n_head": size.num_attention_heads,
        "n_positions": LEARNED_POSITIONS,
        "tie_word_embeddings": size.tie_word_embeddings,
    }


def _mamba(size: DecoderSize) -> dict[str, Any]:
    inner, rank = EXPAND * size.hidden_size, math.ceil(size.hidden_size / 16)
    maps = size.hidden_size * 3 * inner + inner * (2 * rank + 2 * STATE_SIZE)
    return {
        "hidden_size": size.hidden_size,
        "tie_word_embeddings": size.tie_word_embeddings,
        "num_hidden_layers": round(size.num_matrix_weights / (maps + inner * STATE_SIZE)),
        "expand": EXPAND,
        "conv_kernel": CONV_KERNEL,
        "state_size": STATE_SIZE,
        "time_step_rank": rank,
    }


def _mamba2(size: DecoderSize) -> dict[str, Any]:
    inner = EXPAND * size.hidden_size
    maps = size.hidden_size * (3 * inner + 2 * STATE_SIZE_2 + inner // HEAD_SIZE_2)
    return {
        "hidden_size": size.hidden_size,
        "tie_word_embeddings": size.tie_word_embeddings,
        "num_hidden_layers": round(size.num_matrix_weights / maps),
        "expand": EXPAND,
        "conv_kernel": CONV_KERNEL,
        "state_size": STATE_SIZE_2,
        "num_heads": inner // HEAD_SIZE_2,
        "head_dim": HEAD_SIZE_2,
        "n_groups": 1,
    }


def _t5(size: EncoderDecoderSize) -> dict[str, Any]:
    """T5 v1.0: an FFN with ReLU, one embedding table, and a head that reads scaled states."""
    return {
        "d_model": size.hidden_size,
        "d_ff": size.intermediate_size,
        "num_layers": size.num_hidden_layers,
        "num_decoder_layers": size.num_hidden_layers,
        "num_heads": size.num_attention_heads,
        "d_kv": size.head_size,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
        "scale_decoder_outputs": True,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
    }


@dataclass(frozen=True)
class SizedFamily(Generic[Size]):
    """The sizes of a family, and their configs."""

    sizes: Mapping[str, Size]
    fields: Callable[[Size], dict[str, Any]]


FAMILIES_OF_SIZES: Mapping[str, SizedFamily[Any]] = {
    "llama": SizedFamily(DECODER_SIZES, _gated),
    "qwen2": SizedFamily(DECODER_SIZES, _gated),
    "qwen3": SizedFamily(DECODER_SIZES, _qwen3),
    "gpt2": SizedFamily(DECODER_SIZES, _gpt2),
    "mamba": SizedFamily(DECODER_SIZES, _mamba),
    "mamba2": SizedFamily(DECODER_SIZES, _mamba2),
    "t5": SizedFamily(ENCODER_DECODER_SIZES, _t5),
}


def config_of_size(size: str, family: str) -> dict[str, Any]:
    """The config of a named size, without the vocabulary."""
    row = FAMILIES_OF_SIZES[family]
    return {"model_type": family, **row.fields(row.sizes[size])}
