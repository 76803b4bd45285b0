"""Convert texts to token ids with only the `tokenizers` library, and ragged rows to padded batches.

The problem: a deployed model must tokenize text on a machine without torch and transformers,
exactly as in training. The idea: one encoder for both; `attar.special_tokens` describes how a model
folder's files become a tokenizer. The tokenizer's own padding and truncation settings (MiniLM's
pads everything to 128) are replaced: truncate the longer text of a pair, pad on the right, and only
to the longest row of a batch.

Shapes: B rows of a batch, T tokens. Not included: character offsets of tokens
(`attar.data.windows`), and inputs other than the three that encoders know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from attar.errors import ModelError, UsageError
from attar.special_tokens import (
    open_tokenizer,
    padding_id,
    tokenizer_errors,
    truncation_side,
)

KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TEXTS_AT_ONCE = 4096
"""Number of texts tokenized in one call: enough to use all cores, few enough to bound memory."""
FAILS = "the model's tokenizer.json fails on a text"


@dataclass(frozen=True)
class Encoded:
    """Rows of token ids of different lengths, concatenated: row i is `ids[starts[i]:starts[i +
    1]]`."""

    ids: np.ndarray
    type_ids: np.ndarray
    starts: np.ndarray
    input_names: tuple[str, ...]
    pad_id: int
    is_cut: np.ndarray
    """Whether each row had more than max_length tokens, bool (N,)."""
    width: int | None = None
    """Number of tokens to which every batch is padded; None: its longest row."""

    @classmethod
    def of(
        cls,
        rows: Sequence[np.ndarray],
        input_names: tuple[str, ...],
        pad_id: int,
        is_cut: Sequence[bool],
        type_ids: Sequence[np.ndarray] = (),
    ) -> Encoded:
        """Concatenate rows of ids.

        Args:
            type_ids: of each row; empty: all 0.
        """
        ids = np.concatenate([np.zeros(0, np.int32), *rows])
        types = (
            np.concatenate(type_ids).astype(np.int8) if type_ids else np.zeros(len(ids), np.int8)
        )
        starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(ids, types, starts, input_names, pad_id, np.array(is_cut, np.bool_))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def largest_id(self) -> int:
        """The largest id in all rows, including padding."""
        return int(self.ids.max(initial=self.pad_id))

    @property
    def num_cut(self) -> int:
        """Number of rows that had more than max_length tokens."""
        return int(self.is_cut.sum())

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row, including special tokens."""
        return np.diff(self.starts)

    def batch(
        self, indices: Sequence[int] | np.ndarray, pad_to: int | None = None
    ) -> dict[str, np.ndarray]:
        """Rows as model inputs, int64 of shape (B, T), padded on the right.

        Args:
            pad_to: T; None: `width`, or the longest of these rows.

        Raises:
            UsageError: `pad_to` is shorter than one of the rows.
        """
        indices = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[indices]
        longest = int(lengths.max(initial=0))
        width = pad_to or self.width or longest
        if width < longest:
            raise UsageError(
                f"pad_to is {width}, a row of this batch has {longest} tokens; raise pad_to or "
                "lower max_length"
            )
        shape = (len(indices), width)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        type_ids = np.zeros(shape, dtype=np.int64)
        for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
            begin = self.starts[index]
            ids[row, :length] = self.ids[begin : begin + length]
            type_ids[row, :length] = self.type_ids[begin : begin + length]
        mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": type_ids}
        return {name: inputs[name] for name in self.input_names}


class TextEncoder:
    """A model's tokenizer that truncates to `max_length` tokens, including special tokens."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        input_names: tuple[str, ...],
        pad_id: int,
        cut_at: str = "right",
    ) -> None:
        unknown = [name for name in input_names if name not in KNOWN_INPUTS]
        if unknown:
            raise ModelError(
                f"the model asks for the inputs {unknown}; attar can provide {list(KNOWN_INPUTS)}"
            )
        special = tokenizer.num_special_tokens_to_add(is_pair=True)
        if max_length <= special:
            raise UsageError(
                f"max_length is {max_length}, but a pair of texts needs {special} special tokens; "
                f"use at least {special + 1}"
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length, strategy="longest_first", direction=cut_at)
        self._tokenizer = tokenizer
        self.max_length = max_length
        self.input_names = input_names
        self.pad_id = pad_id

    @classmethod
    def from_folder(
        cls, model_folder: Path, max_length: int, input_names: tuple[str, ...]
    ) -> TextEncoder:
        """The tokenizer of a model folder, with its padding token and truncation side. If there is
        no padding token, as in GPT-2, the end token is used (`attar.special_tokens`).

        Raises:
            ModelError: the folder has no usable tokenizer, or defines neither a padding nor an end
                token.
        """
        tokenizer = open_tokenizer(model_folder)
        pad_id = find_pad_id(model_folder, tokenizer)
        cut_at = truncation_side(model_folder, tokenizer)
        return cls(tokenizer, max_length, input_names, pad_id, cut_at)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> Encoded:
        """Tokenize sentences `(text,)` or pairs `(first, second)`, using all cores."""
        rows: list[np.ndarray] = []
        row_types: list[np.ndarray] = []
        is_cut: list[bool] = []
        inputs = [text[0] if len(text) == 1 else tuple(text) for text in texts]
        with tokenizer_errors(FAILS):  # or an id is too large for int32
            for encoding in encodings(self._tokenizer, inputs, special=True):
                rows.append(np.array(encoding.ids, dtype=np.int32))
                row_types.append(np.array(encoding.type_ids, dtype=np.int8))
                is_cut.append(bool(encoding.overflowing))
        return Encoded.of(rows, self.input_names, self.pad_id, is_cut, row_types)

    def decode(self, ids: np.ndarray) -> list[str]:
        """Decode rows of token ids (B, T) to texts, without special tokens."""
        return self._tokenizer.decode_batch(ids.tolist(), skip_special_tokens=True)


def encodings(
    tokenizer: Tokenizer, texts: Sequence[Any], *, special: bool = False, offsets: bool = False
) -> Iterator[Encoding]:
    """Tokenize texts or pairs in order, using all cores.

    Args:
        special: whether to add special tokens.
        offsets: whether to compute the characters of each token, which takes longer.

    Raises:
        ModelError: the tokenizer fails on a text.
    """
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    for begin in range(0, len(texts), TEXTS_AT_ONCE):
        with tokenizer_errors(FAILS):
            found = encode(list(texts[begin : begin + TEXTS_AT_ONCE]), add_special_tokens=special)
        yield from found


def find_pad_id(model_folder: Path, tokenizer: Tokenizer) -> int:
    """The padding token's id.

    Raises:
        ModelError: there is neither a padding token nor an end token.
    """
    pad_id = padding_id(model_folder, tokenizer)
    if pad_id is None:
        raise ModelError(
            f"{model_folder} sets neither a padding token nor an end token to pad with (pad_token "
            "or eos_token in tokenizer_config.json, pad_token_id or eos_token_id in "
            "config.json); set one of them"
        )
    return pad_id
