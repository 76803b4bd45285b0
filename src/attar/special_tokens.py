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

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from attar.errors import AttarError, ModelError
from attar.tokenizer_limits import MAX_TOKENIZER_BYTES, tokenizer_faults
from attar.untrusted import has_entry, parse_json, read_bytes, read_json

TOKENIZER_FILE = "tokenizer.json"


def open_tokenizer(model_folder: Path) -> Tokenizer:
    """The folder's `tokenizer.json` as it is.

    Raises:
        ModelError: there is none, it is damaged, or it could take endless time or memory.
        ArtifactError: it is no regular file of its folder, or too large.
    """
    file = model_folder / TOKENIZER_FILE
    if not has_entry(file):
        raise ModelError(
            f"{model_folder} has no tokenizer.json; save the model with its fast tokenizer "
            "(tokenizer.save_pretrained writes the file)"
        )
    raw = read_bytes(file, MAX_TOKENIZER_BYTES)
    faults = list(tokenizer_faults(parse_json(raw, file)))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ModelError(f"{file} is refused: {faults[0]}{more}; get the model again")
    with tokenizer_errors(f"{file} is damaged or not a tokenizer"):
        return Tokenizer.from_str(raw.decode("utf-8"))


@contextmanager
def tokenizer_errors(what: str) -> Generator[None]:
    """Turn what the `tokenizers` library raises into a `ModelError` that begins with `what`.

    It raises bare Exception, and for a panic in Rust an exception that is no Exception.
    """
    try:
        yield
    except AttarError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what} ({error}); get the model again") from error


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
    token = _settings(model_folder / "tokenizer_config.json").get(name)
    token = token.get("content") if isinstance(token, dict) else token
    return tokenizer.token_to_id(token) if isinstance(token, str) else None


def _by_config(model_folder: Path, name: str) -> int | None:
    said: Any = _settings(model_folder / "config.json").get(f"{name}_id")
    first = said[0] if isinstance(said, list) and said else said
    return first if isinstance(first, int) else None


def _settings(file: Path) -> dict[str, Any]:
    content = read_json(file) if has_entry(file) else {}
    return content if isinstance(content, dict) else {}
