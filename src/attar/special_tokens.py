"""What reads a folder's texts, which token pads, which one ends: by one rule for all.

A decoder classifies at the last token that is not padding, so text encoder and model must agree on
the padding id; both ask here. The tokenizer's padding token goes first, then the config's
`pad_token_id`, then the end token, since GPT-2 and many decoders after it have no padding token. An
end token can pad because the mask hides it; a classifying decoder then reads the last token before
the end, alone and in a batch alike.

A model folder is read as transformers reads it (`attar.transformers_tokenizer`). An exported
folder, which must answer without transformers, is read from its `tokenizer.json` alone: attar wrote
into it what transformers made of the model folder.
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
"""By which an exported folder is known."""


def open_tokenizer(model_folder: Path) -> Tokenizer:
    """The folder's tokenizer, the caller's to change.

    Raises:
        ModelError: there is none, it is damaged, it could take endless time or memory, or it does
            not go with the settings beside it.
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


def vocabulary_of(model_folder: Path) -> tuple[int, int | None]:
    """How many embeddings a model needs for a folder's tokenizer, and the id of the end token.

    Raises:
        ModelError: as `open_tokenizer`.
    """
    tokenizer = open_tokenizer(model_folder)
    return num_ids(tokenizer), special_token_id(model_folder, tokenizer, "eos_token")


def num_ids(tokenizer: Tokenizer) -> int:
    """The highest id + 1: more than there are tokens where ids are left out."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


@lru_cache(maxsize=4)
def _require_harmless(raw: bytes, file: Path) -> None:
    """Refuse a `tokenizer.json` that must not be built, or cannot be; the same one is looked at
    once, since several parts of a step open it and each look takes up to a second."""
    faults = list(tokenizer_faults(parse_json(raw, file)))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ModelError(f"{file} is refused: {faults[0]}{more}; get the model again")
    with tokenizer_errors(f"{file} is damaged or not a tokenizer"):
        Tokenizer.from_str(raw.decode("utf-8"))


def write_tokenizer(
    model_folder: Path, folder: Path, max_length: int | None, input_names: tuple[str, ...]
) -> None:
    """Write the tokenizer of `model_folder` into `folder`, telling every reader what attar knows:
    where texts are cut, which token pads and on which side, and what the model is fed.

    Args:
        max_length: tokens, special tokens included; None: as the tokenizer says.
    Raises:
        ModelError: as `open_tokenizer`.
    """
    pad_id = padding_id(model_folder, open_tokenizer(model_folder))
    save_tokenizer(
        model_folder, folder, max_length=max_length, input_names=input_names, pad_id=pad_id
    )


def require_rows(tokenizer: Tokenizer, config: Mapping[str, Any], where: str) -> None:
    """Refuse a tokenizer with ids for which the model has no embedding.

    Args:
        config: `vocab_size` and `type_vocab_size` are looked at, where it has them.
    Raises:
        ModelError: with both numbers.
    """
    rows, types = config.get("vocab_size"), config.get("type_vocab_size")
    with tokenizer_errors(f"{where}: the tokenizer fails on a pair of texts"):
        around = tokenizer.encode("", "")  # special tokens of a template have ids of their own
    ids = tokenizer.get_vocab() | dict(zip(around.tokens, around.ids, strict=True))
    token, highest = max(ids.items(), key=itemgetter(1), default=("", -1))
    if isinstance(rows, int) and highest >= rows:
        raise ModelError(
            f"{where}: the tokenizer has token ids up to {highest} ({token!r}), the model has "
            f"{rows} embeddings (ids 0 to {rows - 1}), so texts with that token cannot be "
            f"processed; resize the model (model.resize_token_embeddings({highest + 1}) in "
            "transformers), or "
            "save it with the tokenizer it was trained with"
        )
    segment = max(around.type_ids, default=0)
    if isinstance(types, int) and 1 < types <= segment:
        raise ModelError(
            f"{where}: the tokenizer gives the second text of a pair the segment {segment}, the "
            f"model has {types} segments (0 to {types - 1}); save it with the tokenizer it was "
            "trained with"
        )


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """A hash of what turns plain text into ids. Where texts are cut, how they are padded and which
    special tokens enclose them is not part of it: a trained model's file differs in these."""
    settings = json.loads(tokenizer.to_str())
    for name in ("version", "truncation", "padding", "post_processor"):
        settings.pop(name, None)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def require_reading(model_type: str, model_folder: Path, where: str) -> None:
    """Refuse a folder's tokenizer for a new model of a type beside which transformers would build
    another tokenizer of it: the saved model would read texts otherwise than it was trained.

    Raises:
        ModelError: naming the type.
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
    """Whether attar exported it."""
    return has_entry(model_folder / DEPLOY_FILE)


def truncation_side(model_folder: Path, tokenizer: Tokenizer) -> str:
    """The end at which texts are cut: "right" or "left"."""
    if not is_exported(model_folder):
        return read_as_transformers(model_folder).truncation_side
    return "right" if tokenizer.truncation is None else str(tokenizer.truncation["direction"])


def takes_segments(model_folder: Path) -> bool:
    """Whether transformers would feed a model with this tokenizer the segments of a pair."""
    open_tokenizer(model_folder)  # looks whether it is safe to build
    return "token_type_ids" in read_as_transformers(model_folder).model_input_names


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
