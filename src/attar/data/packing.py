"""Running text as blocks of tokens: documents concatenated and cut every `length` tokens.

The problem: documents have any length, and padding each to the longest would be mostly padding. The
idea: one stream, with an end token after every document, cut into blocks that are all full except
the last. A block may begin and end inside a document, and tokens can attend to the previous
document in their block, as in GPT-2's training: no mask separates documents.

No special tokens are added except the end token. The whole stream is held in memory, 4 bytes per
token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from attar.data.tokenize import Encoded, encodings
from attar.errors import DataError, ModelError
from attar.special_tokens import open_tokenizer, special_token_id

INPUTS = ("input_ids", "attention_mask")


@dataclass(frozen=True)
class TokenBlocks:
    """The text of a split in blocks."""

    encoded: Encoded
    """One row per block."""
    num_bytes: int
    """Size of the text in UTF-8, in bytes."""


END, SEPARATOR = "eos_token", "sep_token"
"""The token after a document: for causal language models, and for masked ones (BERT has no end
token)."""


def document_tokenizer(model_folder: Path, end: str = END) -> tuple[Tokenizer, int]:
    """The tokenizer of a model folder, without truncation and padding, and its end token.

    Special tokens that appear in a text are treated as plain text, so only the end of a document
    ends it.

    Args:
        end: which special token ends a document.

    Raises:
        ModelError: the tokenizer is missing or damaged, or has no end token.
    """
    tokenizer = open_tokenizer(model_folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()  # an exported tokenizer.json has truncation set
    tokenizer.encode_special_tokens = True
    found = special_token_id(model_folder, tokenizer, end)
    if found is None:
        raise ModelError(
            f"no end token is set in {model_folder} ({end} in tokenizer_config.json, or "
            f"{end}_id in config.json), so documents cannot be separated; set one of them"
        )
    return tokenizer, found


def token_blocks(
    model_folder: Path,
    texts: Sequence[tuple[str, ...]],
    length: int,
    where: str,
    end_token: str = END,
) -> TokenBlocks:
    """Concatenate the texts and cut them into blocks of `length` tokens. A last block of one token
    is dropped, because it predicts nothing.

    Args:
        model_folder: model whose tokenizer and end token are used.
        where: name of the texts in messages.
        end_token: as in `document_tokenizer`.

    Raises:
        ModelError: the tokenizer is missing or damaged, or has no end token.
        DataError: the texts have fewer than two tokens.
    """
    tokenizer, end = document_tokenizer(model_folder, end_token)
    read = encodings(tokenizer, [" ".join(text) for text in texts])
    pieces = [np.array([*encoding.ids, end], dtype=np.int32) for encoding in read]
    ids = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
    usable = len(ids) - (len(ids) % length == 1)
    if usable < 2:
        raise DataError(
            f"{where} has {len(ids)} tokens, but predicting a next token needs at least 2; add text"
        )
    starts = np.append(np.arange(0, usable, length), usable).astype(np.int64)
    num_bytes = sum(len(part.encode()) for text in texts for part in text)
    is_cut = np.zeros(len(starts) - 1, np.bool_)
    encoded = Encoded(ids[:usable], np.zeros(usable, np.int8), starts, INPUTS, end, is_cut)
    return TokenBlocks(encoded, num_bytes)
