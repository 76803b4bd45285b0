"""Which token pads, which one ends: what a folder's tokenizer and config say, by one rule.

The problem: a decoder classifies at the last token that is not padding, so the model must know the
very id that the text encoder pads with; if each finds it in its own way, the model reads a padding
place, and an answer depends on the other rows of its batch. The idea: text encoder and model ask
the same function here, below both. The tokenizer's padding token goes first, then the config's
`pad_token_id`, then the end token, since GPT-2 and many decoders after it name no padding at all.

An end token can pad because the mask hides it; a classifying decoder then reads the last token
before the end, alone and in a batch alike. Left out: `special_tokens_map.json`, which repeats
`tokenizer_config.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from attar.errors import ModelError

TOKENIZER_FILE = "tokenizer.json"


def open_tokenizer(model_folder: Path) -> Tokenizer:
    """The folder's `tokenizer.json` as it is.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    file = model_folder / TOKENIZER_FILE
    if not file.is_file():
        raise ModelError(
            f"{model_folder} has no tokenizer.json; save the model with its fast tokenizer "
            "(tokenizer.save_pretrained writes the file)"
        )
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"{file} is damaged or not a tokenizer ({error}); fetch the model again"
        ) from error


def special_token_id(model_folder: Path, tokenizer: Tokenizer, name: str) -> int | None:
    """The id of a special token such as "eos_token", by the tokenizer's settings, then the
    model's.
    """
    found = _by_tokenizer(model_folder, tokenizer, name)
    return _by_config(model_folder, name) if found is None else found


def padding_id(model_folder: Path, tokenizer: Tokenizer) -> int | None:
    """The tokenizer's padding token, else the config's `pad_token_id`, else the end token; None:
    the folder names none of them.
    """
    found = _by_tokenizer(model_folder, tokenizer, "pad_token")
    if found is None and tokenizer.padding is not None:
        found = int(tokenizer.padding["pad_id"])
    if found is None:
        found = _by_config(model_folder, "pad_token")
    return special_token_id(model_folder, tokenizer, "eos_token") if found is None else found


def _by_tokenizer(model_folder: Path, tokenizer: Tokenizer, name: str) -> int | None:
    token = _read_json_object(model_folder / "tokenizer_config.json").get(name)
    token = token.get("content") if isinstance(token, dict) else token
    return tokenizer.token_to_id(token) if isinstance(token, str) else None


def _by_config(model_folder: Path, name: str) -> int | None:
    said: Any = _read_json_object(model_folder / "config.json").get(f"{name}_id")
    first = said[0] if isinstance(said, list) and said else said
    return first if isinstance(first, int) else None


def _read_json_object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{file} is damaged ({error}); fetch the model again") from error
    return content if isinstance(content, dict) else {}
