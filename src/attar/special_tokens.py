"""The tokenizer of a folder, and its padding and end tokens.

A decoder classifies at the last token that is not padding, so text encoder and model must use the
same padding id. It is the tokenizer's padding token, otherwise the config's `pad_token_id`,
otherwise the end token, because GPT-2 and many later decoders have no padding token. An end token
can be used for padding because the mask hides it. A classifying decoder then reads the last token
before the end token, with or without padding.

The tokenizer of a model folder is built by transformers (`attar.transformers_tokenizer`). An
exported folder must work without transformers, so only its `tokenizer.json` is read, which attar
wrote from the tokenizer of transformers.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from attar.errors import ModelError
from attar.tokenizer_limits import MAX_TOKENIZER_BYTES, tokenizer_errors, tokenizer_faults
from attar.transformers_tokenizer import (
    TOKENIZER_FILE,
    read_as_transformers,
    read_for,
    save_tokenizer,
)
from attar.untrusted import has_entry, parse_json, read_bytes, read_json

DEPLOY_FILE = "deploy.json"
"""The file that identifies an exported folder."""


def open_tokenizer(model_folder: Path) -> Tokenizer:
    """Open a folder's tokenizer. The caller may modify it.

    Raises:
        ModelError: it is missing, damaged, could take unlimited time or memory, or does not match
            the tokenizer settings.
        ArtifactError: it is not a regular file of its folder, or too large.
    """
    file = model_folder / TOKENIZER_FILE
    if not has_entry(file):
        raise ModelError(
            f"{model_folder} has no tokenizer.json; save the model with its fast tokenizer "
            "(tokenizer.save_pretrained writes the file)"
        )
    raw = read_bytes(file, MAX_TOKENIZER_BYTES)
    _require_harmless(raw, file)
    if is_exported(model_folder):
        tokenizer = Tokenizer.from_str(raw.decode("utf-8"))
        require_rows(tokenizer, _settings(model_folder / "config.json"), str(model_folder))
        return tokenizer
    tokenizer = copy.deepcopy(read_as_transformers(model_folder).backend_tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenizer_as_saved(model_folder: Path, most_bytes: float) -> Tokenizer | None:
    """The tokenizer of a folder's `tokenizer.json` alone, to count tokens without importing
    transformers.

    Args:
        most_bytes: a larger file takes too long to read.
    Returns:
        None: there is no such file, or it is larger.
    Raises:
        ModelError, ArtifactError: as `open_tokenizer`.
    """
    file = model_folder / TOKENIZER_FILE
    if not has_entry(file) or file.stat().st_size > most_bytes:
        return None
    raw = read_bytes(file, MAX_TOKENIZER_BYTES)
    _require_harmless(raw, file)
    return Tokenizer.from_str(raw.decode("utf-8"))


def vocabulary_of(model_folder: Path) -> tuple[int, int | None]:
    """Number of embeddings that a model needs for a folder's tokenizer, and the end token's id.

    Raises:
        ModelError: as `open_tokenizer`.
    """
    tokenizer = open_tokenizer(model_folder)
    return num_ids(tokenizer), special_token_id(model_folder, tokenizer, "eos_token")


def num_ids(tokenizer: Tokenizer) -> int:
    """The highest id + 1, which is larger than the number of tokens if ids have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


@lru_cache(maxsize=4)
def _require_harmless(raw: bytes, file: Path) -> None:
    """Check that a `tokenizer.json` is safe and valid. Results are cached, because a check takes up
    to a second and a step opens the tokenizer several times."""
    faults = list(tokenizer_faults(parse_json(raw, file)))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ModelError(f"{file} is refused: {faults[0]}{more}; get the model again")
    with tokenizer_errors(f"{file} is damaged or not a tokenizer"):
        Tokenizer.from_str(raw.decode("utf-8"))


def write_tokenizer(
    model_folder: Path, folder: Path, max_length: int | None, input_names: tuple[str, ...]
) -> None:
    """Write the tokenizer of `model_folder` to `folder`, with truncation, padding token and side,
    and the model's inputs.

    Args:
        max_length: maximum number of tokens, including special tokens; None: the tokenizer's own.
    Raises:
        ModelError: as `open_tokenizer`.
    """
    pad_id = padding_id(model_folder, open_tokenizer(model_folder))
    save_tokenizer(
        model_folder, folder, max_length=max_length, input_names=input_names, pad_id=pad_id
    )


def require_rows(tokenizer: Tokenizer, config: Mapping[str, Any], where: str) -> None:
    """Check that the model has an embedding for every id of the tokenizer.

    Args:
        config: the model's config; `vocab_size` and `type_vocab_size` are checked if present.
    Raises:
        ModelError: there are fewer embeddings than ids.
    """
    rows, types = config.get("vocab_size"), config.get("type_vocab_size")
    with tokenizer_errors(f"{where}: the tokenizer fails on a pair of texts"):
        around = tokenizer.encode("", "")  # special tokens of a template have their own ids
    ids = tokenizer.get_vocab() | dict(zip(around.tokens, around.ids, strict=True))
    token, highest = max(ids.items(), key=itemgetter(1), default=("", -1))
    if isinstance(rows, int) and highest >= rows:
        raise ModelError(
            f"{where}: the tokenizer has token ids up to {highest} ({token!r}), the model has "
            f"{rows} embeddings (ids 0 to {rows - 1}), so texts with that token cannot be "
            f"processed; resize the model (model.resize_token_embeddings({highest + 1}) in "
            "transformers), or save it with the tokenizer it was trained with"
        )
    segment = max(around.type_ids, default=0)
    if isinstance(types, int) and 1 < types <= segment:
        raise ModelError(
            f"{where}: the tokenizer gives the second text of a pair the segment {segment}, the "
            f"model has {types} segments (0 to {types - 1}); save it with the tokenizer it was "
            "trained with"
        )


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """A hash of the conversion of plain text to ids. Truncation, padding and the special tokens
    around a text are not included, because the file of a trained model differs in these."""
    settings = json.loads(tokenizer.to_str())
    for name in ("version", "truncation", "padding", "post_processor"):
        settings.pop(name, None)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def require_reading(model_type: str, model_folder: Path, where: str) -> None:
    """Check that transformers builds the same tokenizer from a folder for a new model type.
    Otherwise the saved model would tokenize texts differently than in training.

    Raises:
        ModelError: the tokenizer would be different.
    """
    if is_exported(model_folder):
        return
    backend = copy.deepcopy(read_for(model_type, model_folder).backend_tokenizer)
    if tokenizer_digest(backend) != tokenizer_digest(open_tokenizer(model_folder)):
        raise ModelError(
            f"{where}: beside a model of type {model_type!r}, transformers uses that type's own "
            f"pre-tokenization, which differs from the tokenizer of {model_folder}; use another "
            "family, or a tokenizer of that type"
        )


def is_exported(model_folder: Path) -> bool:
    """Whether the folder was exported by attar."""
    return has_entry(model_folder / DEPLOY_FILE)


def truncation_side(model_folder: Path, tokenizer: Tokenizer) -> str:
    """The side on which texts are truncated: "right" or "left"."""
    if not is_exported(model_folder):
        return read_as_transformers(model_folder).truncation_side
    return "right" if tokenizer.truncation is None else str(tokenizer.truncation["direction"])


def takes_segments(model_folder: Path) -> bool:
    """Whether transformers passes token type ids to a model with this tokenizer."""
    open_tokenizer(model_folder)  # checks that it is safe to build
    return "token_type_ids" in read_as_transformers(model_folder).model_input_names


def special_token_id(model_folder: Path, tokenizer: Tokenizer, name: str) -> int | None:
    """The id of a special token such as "eos_token", from the tokenizer's settings or else the
    model's.
    """
    found = _by_tokenizer(model_folder, tokenizer, name)
    return _by_config(model_folder, name) if found is None else found


def padding_id(model_folder: Path, tokenizer: Tokenizer) -> int | None:
    """The id of the tokenizer's padding token, otherwise the config's `pad_token_id`, otherwise the
    end token; None if there is none.
    """
    found = _by_tokenizer(model_folder, tokenizer, "pad_token")
    if found is None and tokenizer.padding is not None:
        found = int(tokenizer.padding["pad_id"])
    if found is None:
        found = _by_config(model_folder, "pad_token")
    return special_token_id(model_folder, tokenizer, "eos_token") if found is None else found


def _by_tokenizer(model_folder: Path, tokenizer: Tokenizer, name: str) -> int | None:
    if not is_exported(model_folder):
        return getattr(read_as_transformers(model_folder), f"{name}_id")
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
