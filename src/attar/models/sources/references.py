"""From a word in a recipe to a folder on this machine. Imports no torch.

A word is tried in a fixed order, and the first that fits wins: a step of the recipe · "demo:…" · a
folder (relative to the recipe) · a hub id. From the hub only safetensors, JSON and tokenizer files
are fetched, so that a pickle or a Python file of a repository never reaches this disk.

`model_fingerprint` says which bytes a word stands for, without loading them into a model: part of a
step's key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from attar.artifacts import key_of, sha256_of
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
"""Names fetched from the hub; everything else in a repository is left there."""
MADE_FILES = (
    *("qparams.json", "weights.safetensors"),
    *("deploy.json", "openvino_model.xml", "openvino_model.bin", "model.onnx"),
)
"""What quantized and exported models have in place of `model.safetensors`."""
CACHE_FILES = ("cache.json", "rows.safetensors")
"""Beside the `model/` of a cache of its answers: which answers, and about which rows."""
PROXY_FILE = "proxy.safetensors"
"""Beside the weights of a proxy's body: its head."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_model(word: str, inputs: Mapping[str, Path], recipe_folder: Path) -> Path:
    """The model folder a word stands for.

    Args:
        inputs: step name → its published folder; steps win over folders of the same name.
        recipe_folder: where relative folders start.
    Raises:
        ModelError: nothing fits; the message names everything that was tried.
        UsageError: an unknown demo model, or its package is not installed.
    """
    if word in inputs:
        return find_model_folder(inputs[word])
    return _outside_model(word, recipe_folder, steps=sorted(inputs))


def model_fingerprint(
    word: str, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> str:
    """A hash of the model that a word stands for, if it is not a step: of every file that is read.

    The sha256 of a demo model is known beforehand. A model that could not be loaded is refused
    here, before any step has run.

    Args:
        sha256: what hashes a file; the default reads every byte.
    Raises:
        ModelError, UsageError: as `resolve_model`.
        ArtifactError: a pickle, a link that leads away, or no weights at all.
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
    """Refuse a model folder that a step could not read, by its list of files, its config and the
    headers of its weights.

    Args:
        weights, tokenizer: which of them are needed.
    Raises:
        ModelError: not a model folder, or one without a tokenizer.
        ArtifactError: damaged, a pickle, or pointing outside the folder.
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
    """A hash of the tokenizer of what a word stands for, if it is not a step; the folder need not
    hold a model.

    Args:
        sha256: what hashes a file; the default reads every byte.
    Raises:
        ModelError, UsageError: as `resolve_model`; there is no tokenizer.
        ArtifactError: damaged, or a link that leads away.
    """
    if word.startswith(DEMO_PREFIX):
        return demo_model(word).sha256[:16]
    folder = _outside_model(word, recipe_folder, steps=())
    _require_tokenizer(folder)
    if has_entry(folder / CONFIG_FILE):
        read_config(folder)  # transformers chooses the tokenizer's class by it
    read = [folder / name for name in (CONFIG_FILE, *TOKENIZER_FILES) if has_entry(folder / name)]
    return key_of({path.name: sha256(checked(path)) for path in read})


def find_model_folder(path: Path) -> Path:
    """The model folder of an artifact: its `model/` where it has one, else the folder itself."""
    return path / "model" if (path / "model").is_dir() else path


def _outside_model(word: str, recipe_folder: Path, steps: list[str] | tuple[str, ...]) -> Path:
    if word.startswith(DEMO_PREFIX):
        return demo_folder(word)
    folder = recipe_folder / os.path.expanduser(word)  # noqa: PTH111 - unknown users stay words
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
    """A repository's safe files, fetched; those in the cache when the hub cannot be reached."""
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
