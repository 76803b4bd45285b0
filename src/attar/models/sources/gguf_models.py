"""A demo model that a package carries as GGUF, llama.cpp's format, as a model folder of ours.

transformers reads the file and undoes what llama.cpp changed (the order of query and key rows); the
weights become float32. That takes half a minute, so the folder is kept in the user's cache, written
aside and put in place by one rename.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from attar.artifacts import disk_errors_explained, read_json, write_json
from attar.errors import UsageError
from attar.progress import Progress

FLOAT_BYTES = 600 * 2**20
"""What the folder of the largest such model takes, with some room."""


def converted(file: Path, folder_name: str, end_token: str, install: str) -> Path:
    """The model folder made of a GGUF file, made now if the cache does not have it.

    Args:
        file: its bytes are known to be the published ones.
        folder_name: in the cache; another file must have another one.
        end_token: what documents ended with in pre-training; a chat model's own ends a turn.
        install: how to install what the conversion needs.
    Raises:
        UsageError: the library `gguf` is not installed.
        ResourceError: the disk is full.
    """
    folder = cache_folder() / folder_name
    if folder.is_dir():
        return folder
    try:
        import gguf  # noqa: F401 - transformers needs it
    except ImportError as error:
        raise UsageError(f"{file.name} is read with the library 'gguf'; {install}") from error
    Progress().say(f"{file.name}: converting to float32 once, into {folder}")
    with disk_errors_explained(folder.parent, FLOAT_BYTES):
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder_name}.", dir=folder.parent))
        try:
            _convert(file, aside, end_token)
            if not folder.is_dir():  # another process may have been faster
                aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """Where attar keeps what it can make again: $XDG_CACHE_HOME/attar, else ~/.cache/attar."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "attar"


def _convert(file: Path, folder: Path, end_token: str) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    write_json(settings, {**read_json(settings), "eos_token": end_token})
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **source)
    config = {
        name: value
        for name, value in model.config.to_dict().items()
        if name not in ("quantization_config", "_name_or_path")
    }
    config |= {
        "architectures": [type(model).__name__],
        "dtype": "float32",
        "eos_token_id": tokenizer.convert_tokens_to_ids(end_token),
    }
    write_json(folder / "config.json", config)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
