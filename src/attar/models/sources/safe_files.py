"""Which files of a model folder may be read, decided before any of them is. Imports no torch.

A model folder comes from strangers. Three things in it can do harm: a pickle runs code when it is
read, `auto_map` in `config.json` names Python files to run, and an index or a link can point at
files elsewhere on this machine. All three are refused here. A truncated safetensors file is found
from its header, with the number of bytes that is missing.

    file = 8 bytes (n, little endian) + n bytes of JSON header + the tensors, end to end
    size = 8 + n + max(end of data_offsets)

Left out: fetching anything; a link inside the hub's own cache (snapshot → blobs of the same
repository) is no stranger.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from attar.artifacts import read_json
from attar.errors import ArtifactError, ModelError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")
"""Formats that weights also come in and that attar never opens; most of them are pickles."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""What belongs to a tokenizer, in the layouts of the families of `anatomy`."""
GENERATION_FILE = "generation_config.json"
"""How a model that writes text chooses its words, in transformers' terms."""
MADE_KINDS = {"qparams.json": "a quantized", "deploy.json": "an exported"}
"""Files by which the models that attar makes itself are known."""
PICKLE_STARTS = (b"\x80", b"PK\x03\x04")
"""A pickle's protocol byte, and the zip that torch.save puts around one."""
MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header of a safetensors file describes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model folder that were looked at and found safe to read."""

    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    """Empty when the folder has none and none were demanded."""


def read_model_files(folder: Path, *, weights: bool = True) -> ModelFiles:
    """Look at a model folder; refuse what is dangerous, damaged or incomplete.

    Args:
        weights: False for a folder of which only config and tokenizer are used.
    Raises:
        ModelError: not a model folder, or one that brings its own code.
        ArtifactError: damaged, a pickle, or pointing outside the folder.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; name a folder with {CONFIG_FILE} in it")
    config = read_config(folder)
    for name in (*TOKENIZER_FILES, GENERATION_FILE):
        _stays_inside(folder / name)
    files = weight_files(folder) if weights else ()
    for file in files:
        read_header(file)
    return ModelFiles(folder, config, files)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder as plain data, refused when it asks for code of the folder to
    be run.

    Raises:
        ModelError: there is none, it names no `model_type`, or it has `auto_map`.
        ArtifactError: damaged, or a link that points outside the folder.
    """
    file = folder / CONFIG_FILE
    if not file.exists():
        raise ModelError(
            f"{folder} has no {CONFIG_FILE}, so it is no model folder; name a folder in the "
            "Hugging Face layout"
        )
    _stays_inside(file)
    config = read_json(file)
    if not isinstance(config, dict):
        raise ArtifactError(f"{file} holds a {type(config).__name__}, expected a JSON object")
    if config.get("auto_map"):
        raise ModelError(
            f"{file} has auto_map {json.dumps(config['auto_map'])}: the model brings its own "
            "Python code, and attar runs no "
            "code of a model folder; such models are refused. Use a model of a family that "
            "transformers has built in"
        )
    if not isinstance(config.get("model_type"), str):
        raise ModelError(
            f'{file} names no model_type, so its family is unknown; add it, for example "bert"'
        )
    return config


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder: the single one, or those its index names.

    Raises:
        ArtifactError: none, only pickles, or an index or link pointing outside the folder.
    """
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if single.exists() or single.is_symlink():
        return (_stays_inside(single),)
    if index.exists():
        return _indexed_files(_stays_inside(index))
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise ArtifactError(
            f"{folder} has no {WEIGHTS_FILE}, only {', '.join(pickles)}: reading such files can "
            "run code that is hidden in "
            "them, so attar never does; get the model's safetensors files, or convert it where you "
            "trust it"
        )
    made = [kind for name, kind in MADE_KINDS.items() if (folder / name).is_file()]
    if made:
        raise ModelError(
            f"{folder} holds {made[0]} model, and a float one is needed here; name the step or "
            "folder it was made from"
        )
    raise ArtifactError(f"{folder} has no {WEIGHTS_FILE}, so there are no weights to load")


def _indexed_files(index: Path) -> tuple[Path, ...]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ArtifactError(f"{index} has no weight_map, so it names no weights; get it again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise ArtifactError(
                f"{index} points at {name!r}; allowed are names of .safetensors files in its own "
                "folder, so it is refused"
            )
        if not (index.parent / name).exists():
            raise ArtifactError(
                f"{index} names {len(names)} files, and {name} is missing; get the model again"
            )
    return tuple(_stays_inside(index.parent / name) for name in names)


def _stays_inside(file: Path) -> Path:
    """`file`, unless it is a link that leaves its folder (the hub cache's own links excepted)."""
    if not file.is_symlink():
        return file
    folder, target = file.parent.resolve(), file.resolve()
    is_hub_cache = (
        folder.parent.name == "snapshots" and target.parent == folder.parent.parent / "blobs"
    )
    if target.parent != folder and not is_hub_cache:
        raise ArtifactError(
            f"{file} is a link to {target}, outside its folder, so it is refused; copy the file "
            "into the folder if you trust it"
        )
    return file


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Names, types and shapes of the tensors in a safetensors file, its size checked against them.

    Raises:
        ArtifactError: a pickle in disguise, or truncated, or no safetensors file; with the bytes
            expected and found.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if start.startswith(PICKLE_STARTS) and int.from_bytes(start, "little") > size:
            raise ArtifactError(
                f"{file} is a pickle with the name of a safetensors file; reading it could run "
                "code, so it is refused; "
                "get the model's real safetensors file"
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise ArtifactError(
                f"{file} is truncated or no safetensors file: it is {size} bytes long, and its "
                "header alone would take "
                f"{8 + length if len(start) == 8 else 8}; get it again"
            )
        header = _parse_header(file, stream.read(length))
    expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != expected:
        raise ArtifactError(
            f"{file} is {'truncated' if size < expected else 'too long'}: its header describes "
            f"{expected} bytes, "
            f"the file has {size}; get it again, or run the step that made it again"
        )
    return {n: TensorEntry(e["dtype"], tuple(e["shape"])) for n, e in header.items()}


def _parse_header(file: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        for entry in header.values():
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end or not isinstance(entry["dtype"], str):
                raise ValueError(f"impossible entry {entry}")
            prod(int(n) for n in entry["shape"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{file} is damaged: its header of {len(raw)} bytes is not that of a safetensors file "
            f"({error}); get it again"
        ) from error
    return header
