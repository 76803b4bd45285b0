"""Builds the tokenizer of a model folder with transformers.

`tokenizer.json` alone does not say which token ids a model was trained with. From version 5 on,
transformers takes only vocabulary and merges from it for classes such as BertTokenizer, and builds
the rest (lowercasing, accents, the prefix space, special tokens) from `tokenizer_config.json`,
`special_tokens_map.json` and `added_tokens.json`. So transformers builds the tokenizer here, and
attar writes the result, so that all readers of its folders agree. An *exported* folder is read
without transformers, from its `tokenizer.json` (`attar.special_tokens`).

transformers only sees a copy of the files listed here, not the rest of the folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from attar.errors import ModelError
from attar.tokenizer_limits import MAX_TOKENIZER_BYTES, is_of_the_library
from attar.untrusted import has_entry, read_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
READ_FILES = (
    "config.json",
    TOKENIZER_FILE,
    SETTINGS_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files that transformers reads in a folder with a tokenizer.json."""
REFUSED_SETTINGS = {
    "auto_map": "names Python code in the folder, which attar never runs",
    "gguf_file": "names another file to read",
    "tokenizer_object": "is not allowed in a file",
    "init_inputs": "passes positional arguments",
    "split_special_tokens": "reads special tokens as plain text, which tokenizer.json cannot say",
}
"""Settings of tokenizer_config.json that are not allowed → reason."""
UNWRITTEN_SETTINGS = ("is_local", "local_files_only", "max_length", "stride", "truncation_strategy")
"""Settings that transformers saves but that only describe how it was called."""
BACKEND_CLASS = "TokenizersBackend"
"""How transformers 5 names the class that takes tokenizer.json as it is; others know it as"""
OLD_BACKEND_CLASS = "PreTrainedTokenizerFast"

Files = tuple[tuple[str, bytes], ...]


def read_as_transformers(model_folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of `AutoTokenizer.from_pretrained`. It is cached: callers must not modify it.

    Raises:
        ModelError: a setting is not allowed, or transformers cannot build the tokenizer.
    """
    return _checked(model_folder, _cached)


def read_for(model_type: str, model_folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that `AutoTokenizer` builds from the folder for a given model type. For some
    types, transformers uses only the vocabulary and merges, and pre-tokenizes as usual for the
    type, whatever `tokenizer_config.json` says.

    Raises: as `read_as_transformers`.
    """
    config = json.dumps({"model_type": model_type}).encode()

    def build(files: Files) -> PreTrainedTokenizerFast:
        return _cached(tuple(({**dict(files), "config.json": config}).items()))

    return _checked(model_folder, build)


def save_tokenizer(
    model_folder: Path,
    folder: Path,
    *,
    max_length: int | None,
    input_names: tuple[str, ...],
    pad_id: int | None,
) -> None:
    """Write the tokenizer of `model_folder` to `folder`, so that transformers and readers of
    `tokenizer.json` tokenize texts in the same way as attar.

    Args:
        max_length: maximum number of tokens, including special tokens; None: the tokenizer's own.
        input_names: inputs of the model.
        pad_id: padding token, for a tokenizer without one.
    """
    tokenizer = _checked(model_folder, _build)
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if max_length is not None:
        tokenizer.model_max_length = max_length
        backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    pad_token = tokenizer.pad_token
    if pad_token is None and pad_id is not None:
        pad_token = backend.id_to_token(pad_id)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    if settings["tokenizer_class"] == BACKEND_CLASS:
        settings["tokenizer_class"] = OLD_BACKEND_CLASS
    settings |= {
        "model_input_names": list(input_names),
        "padding_side": "right",
        "truncation_side": tokenizer.truncation_side,
        **({} if pad_token is None else {"pad_token": pad_token}),
    }
    kept = {name: value for name, value in settings.items() if name not in UNWRITTEN_SETTINGS}
    text = json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")


def _checked(
    model_folder: Path, build: Callable[[Files], PreTrainedTokenizerFast]
) -> PreTrainedTokenizerFast:
    there = [name for name in READ_FILES if has_entry(model_folder / name)]
    files = tuple((name, read_bytes(model_folder / name, MAX_TOKENIZER_BYTES)) for name in there)
    try:
        _refuse_settings(dict(files), model_folder)
        tokenizer = build(files)
    except ModelError:
        raise
    except BaseException as error:  # untrusted files can make transformers raise anything
        if not is_of_the_library(error):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
        raise ModelError(
            f"transformers cannot build the tokenizer of {model_folder} from {', '.join(there)} "
            f"({reason}); a file is damaged, or they do not belong together: get the model again"
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(
            f"{model_folder}: transformers reads it with {type(tokenizer).__name__}, which is not "
            "a fast tokenizer; save the model with its fast tokenizer"
        )
    return tokenizer


def _refuse_settings(files: dict[str, bytes], model_folder: Path) -> None:
    settings: Any = json.loads(files.get(SETTINGS_FILE, b"{}"))
    for name, reason in REFUSED_SETTINGS.items():
        if settings.get(name):
            raise ModelError(
                f"{model_folder / SETTINGS_FILE} sets {name}, which {reason}; remove the setting"
            )


def _build(files: Files) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with TemporaryDirectory(prefix="attar-tokenizer-") as copy:
            for name, content in files:
                Path(copy, name).write_bytes(content)
            return AutoTokenizer.from_pretrained(
                copy, local_files_only=True, trust_remote_code=False
            )
    finally:
        logging.set_verbosity(level)


_cached = lru_cache(maxsize=4)(_build)
