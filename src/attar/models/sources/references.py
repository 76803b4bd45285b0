"""Resolve a model reference in a recipe to a local folder. Imports no torch.

These are tried in order, and the first match is used: a step of the recipe · "demo:…" · a folder
(relative to the recipe) · a hub id. Only safetensors, JSON and tokenizer files are fetched from the
hub, so a pickle or a Python file of a repository is never downloaded.

`model_fingerprint` hashes the files of a reference without loading a model; it is part of a step's
key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from attar.artifacts import key_of, sha256_of
from attar.config import in_recipe_folder
from attar.errors import ModelError, did_you_mean
from attar.models.sources.demo import PREFIX as DEMO_PREFIX
from attar.models.sources.demo import demo_folder, demo_model
from attar.models.sources.safe_files import (
    CONFIG_FILE,
    GENERATION_FILE,
    INDEX_FILE,
    TOKENIZER_FILES,
    WEIGHTS_FILE,
    check_small_files,
    read_config,
    read_model_files,
)
from attar.tasks.task import TASK_FILE
from attar.transformers_tokenizer import TOKENIZER_FILE
from attar.untrusted import checked, has_entry

HUB_FILES = [
    *(WEIGHTS_FILE, "model-*.safetensors", INDEX_FILE),
    *(CONFIG_FILE, GENERATION_FILE, *TOKENIZER_FILES),
]
"""Files fetched from the hub; all others in a repository are ignored."""
MADE_FILES = (
    *("qparams.json", "weights.safetensors"),
    *("deploy.json", "openvino_model.xml", "openvino_model.bin", "model.onnx"),
)
"""Files of quantized and exported models, instead of `model.safetensors`."""
CACHE_FILES = ("cache.json", "rows.safetensors")
"""Files of a cache, next to its `model/`: its contents, and its rows."""
PROXY_FILE = "proxy.safetensors"
"""File with the head of a proxy, in the folder of its body."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_model(word: str, inputs: Mapping[str, Path], recipe_folder: Path) -> Path:
    """The model folder of a reference.

    Args:
        inputs: step name → its published folder; steps take precedence over folders of the same
            name.
        recipe_folder: base of relative paths.

    Raises:
        ModelError: there is no match; lists everything that was tried.
        UsageError: an unknown demo model, or its package is not installed.
    """
    if word in inputs:
        return find_model_folder(inputs[word])
    return _outside_model(word, recipe_folder, steps=sorted(inputs))


def model_fingerprint(
    word: str, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> str:
    """A hash of every file of a referenced model that is not a step.

    For a demo model, the known sha256 is used. A model that could not be loaded raises an error
    here, before any step has run.

    Args:
        sha256: function that hashes a file; the default reads every byte.

    Raises:
        ModelError, UsageError: as `resolve_model`.
        ArtifactError: a pickle, a link out of the folder, or no weights.
    """
    if word.startswith(DEMO_PREFIX):
        return demo_model(word).sha256[:16]
    folder = _outside_model(word, recipe_folder, steps=())
    made_here = _made_here(folder)
    beside = [folder.parent / name for name in CACHE_FILES if has_entry(folder.parent / name)]
    files = read_model_files(folder, weights=not made_here)
    names = (CONFIG_FILE, TASK_FILE, INDEX_FILE, GENERATION_FILE, PROXY_FILE, *TOKENIZER_FILES)
    others = [folder / name for name in names if has_entry(folder / name)]
    read = (*files.weights, *made_here, *others, *beside)
    return key_of({path.name: sha256(checked(path)) for path in read})


def _made_here(folder: Path) -> list[Path]:
    return [folder / name for name in MADE_FILES if has_entry(folder / name)]


def require_readable(folder: Path, *, weights: bool, tokenizer: bool) -> None:
    """Raise if a step could not read a model folder, according to its list of files, its config and
    the headers of its weights.

    Args:
        weights, tokenizer: whether each of them is needed.

    Raises:
        ModelError: not a model folder, or one without a tokenizer.
        ArtifactError: damaged, a pickle, or a link out of the folder.
    """
    if weights:
        read_model_files(folder, weights=not _made_here(folder))
    if tokenizer or not weights:
        _require_tokenizer(folder)


def _require_tokenizer(folder: Path) -> None:
    if not has_entry(folder / TOKENIZER_FILE):
        raise ModelError(f"{folder} has no {TOKENIZER_FILE}; use a folder with a fast tokenizer")
    check_small_files(folder)


def tokenizer_fingerprint(
    word: str, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> str:
    """A hash of the tokenizer of a reference that is not a step; the folder need not contain a
    model.

    Args:
        sha256: function that hashes a file; the default reads every byte.

    Raises:
        ModelError, UsageError: as `resolve_model`; or there is no tokenizer.
        ArtifactError: damaged, or a link out of the folder.
    """
    if word.startswith(DEMO_PREFIX):
        return demo_model(word).sha256[:16]
    folder = _outside_model(word, recipe_folder, steps=())
    _require_tokenizer(folder)
    if has_entry(folder / CONFIG_FILE):
        read_config(folder)  # transformers chooses the tokenizer's class from it
    read = [folder / name for name in (CONFIG_FILE, *TOKENIZER_FILES) if has_entry(folder / name)]
    return key_of({path.name: sha256(checked(path)) for path in read})


def find_model_folder(path: Path) -> Path:
    """The model folder of an artifact: its `model/` if it has one, else the folder itself."""
    return path / "model" if (path / "model").is_dir() else path


def _outside_model(word: str, recipe_folder: Path, steps: list[str] | tuple[str, ...]) -> Path:
    if word.startswith(DEMO_PREFIX):
        return demo_folder(word)
    folder = in_recipe_folder(word, recipe_folder)
    if folder.is_dir():
        return find_model_folder(folder)
    tried = [f"a step (there are: {', '.join(steps) or 'none'})", f"the folder {folder.resolve()}"]
    if HUB_ID.fullmatch(word) is None:
        raise ModelError(
            f"model {word!r} was not found{did_you_mean(word, steps)}; tried: "
            f"{'; '.join(tried)}; it is not a hub id either (name or owner/name)"
        )
    return _hub_snapshot(word, tried, did_you_mean(word, steps))


def _hub_snapshot(word: str, tried: list[str], hint: str) -> Path:
    """Fetch a repository's allowed files; use the cached ones if the hub cannot be reached."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(word, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        offline = "HF_HUB_OFFLINE is set, and it is not in the cache"
        reason = offline if constants.HF_HUB_OFFLINE else str(error).splitlines()[0]
        raise ModelError(
            f"model {word!r} was not found{hint}; tried: {'; '.join(tried)}; the hub id {word!r} "
            f"({reason}); correct the name, or use a model folder"
        ) from error
