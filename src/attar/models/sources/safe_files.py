"""Decide which files of a model folder may be read, before reading any. Imports no torch.

A model folder is untrusted. Three things in it can do harm: a pickle runs code when it is read, a
setting such as `auto_map` names code to run (`config_checks`), and an index or a link can point to
files elsewhere on this machine (`attar.untrusted`). All three are rejected here. A truncated
safetensors file is detected from its header:

    file = 8 bytes (n, little endian) + n bytes of JSON header + the concatenated tensors
    size = 8 + n + max(end of data_offsets)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.errors import ArtifactError, ModelError
from attar.models.ffn_variants import type_in_memory
from attar.models.sources.config_checks import check_sizes, refuse_code_fields
from attar.tokenizer_limits import MAX_TOKENIZER_BYTES
from attar.untrusted import checked, has_entry, open_file, parse_json, read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")
"""Other formats of weights, which attar never opens; most of them are pickles."""
VOCABULARY_FILES = (
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""Vocabularies as separate files, for other programs: attar reads `tokenizer.json`."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *VOCABULARY_FILES,
)
"""Files of a tokenizer, for all supported families."""
GENERATION_FILE = "generation_config.json"
"""Generation settings of a model, as defined by transformers."""
MADE_KINDS = {"qparams.json": "a quantized", "deploy.json": "an exported"}
"""Files that identify models made by attar."""
PICKLE_STARTS = (b"\x80", b"PK\x03\x04")
"""The protocol byte of a pickle, and the start of the zip that torch.save writes."""
MAX_HEADER_BYTES = 32 * 2**20
"""Limit for the JSON header; the format itself allows 100 MB."""
MAX_TENSORS = 20_000
"""Limit per file. A decoder of 126 blocks has 1,140; transformers takes 0.1 ms per tensor."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model folder, checked to be safe to read."""

    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    """Empty if the folder has none and none were required."""


def read_model_files(folder: Path, *, weights: bool = True) -> ModelFiles:
    """Check a model folder; raise if it is dangerous, damaged or incomplete.

    Args:
        weights: False for a folder of which only config and tokenizer are used.

    Raises:
        ModelError: not a model folder, or one with its own code.
        ArtifactError: damaged, a pickle, or a link out of the folder.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; name a folder with {CONFIG_FILE} in it")
    config = read_config(folder)
    check_small_files(folder)
    files = weight_files(folder) if weights else ()
    for file in files:
        check_header(file)
    return ModelFiles(folder, config, files)


def check_small_files(folder: Path) -> None:
    """Check the files of a tokenizer and the generation settings.

    Raises:
        ModelError: a setting would make a library fetch or run code.
        ArtifactError: damaged, or a link out of the folder.
    """
    for name in (*TOKENIZER_FILES, GENERATION_FILE):
        if has_entry(folder / name):
            checked(folder / name, MAX_TOKENIZER_BYTES)
    for name in ("tokenizer_config.json", GENERATION_FILE):
        if has_entry(folder / name):
            refuse_code_fields(read_settings(folder / name), folder / name)


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model folder as plain data, after the checks of `config_checks`.

    Raises:
        ModelError: there is none, it has no `model_type`, or it contains something that is not
            allowed.
        ArtifactError: damaged, or a link out of the folder.
    """
    file = folder / CONFIG_FILE
    if not has_entry(file):
        raise ModelError(
            f"{folder} has no {CONFIG_FILE}, so it is not a model folder; name a folder in the "
            "Hugging Face layout"
        )
    config = read_settings(file)
    refuse_code_fields(config, file)
    if not isinstance(config.get("model_type"), str):
        raise ModelError(
            f'{file} names no model_type, so its family is unknown; add it, for example "bert"'
        )
    check_sizes(config, file)
    return config | {"model_type": type_in_memory(config["model_type"])}


def read_settings(file: Path) -> dict[str, Any]:
    """Read a JSON object of settings.

    Raises:
        ArtifactError: damaged, or not an object.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise ArtifactError(f"{file} holds a {type(content).__name__}, expected a JSON object")
    return content


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder: a single one, or those in its index.

    Raises:
        ArtifactError: there are none, only pickles, or an index or link out of the folder.
    """
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if has_entry(single):
        return (checked(single),)
    if has_entry(index):
        return _indexed_files(index)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise ArtifactError(
            f"{folder} has no {WEIGHTS_FILE}, only {', '.join(pickles)}: reading such files can "
            "run code that is hidden in them, so attar never does; get the model's safetensors "
            "files, or convert it where you trust it"
        )
    made = [kind for name, kind in MADE_KINDS.items() if has_entry(folder / name)]
    if made:
        raise ModelError(
            f"{folder} holds {made[0]} model, but a float model is needed here; name the step or "
            "folder it was made from"
        )
    raise ArtifactError(f"{folder} has no {WEIGHTS_FILE}, so it has no weights")


def _indexed_files(index: Path) -> tuple[Path, ...]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ArtifactError(f"{index} has no weight_map, so the weights are unknown; get it again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise ArtifactError(
                f"{index} points at {name!r}; only .safetensors files in the same folder are "
                "allowed, so it is refused"
            )
        if not has_entry(index.parent / name):
            raise ArtifactError(
                f"{index} names {len(names)} files, and {name} is missing; get the model again"
            )
    return tuple(checked(index.parent / name) for name in names)


def check_header(file: Path) -> None:
    """Raise ArtifactError if the header of a safetensors file is damaged or does not match the
    file's size.
    """
    with open_file(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(8)
        if start.startswith(PICKLE_STARTS) and int.from_bytes(start, "little") > size:
            raise ArtifactError(
                f"{file} is a pickle with the name of a safetensors file; reading it could run "
                "code, so it is refused; get the model's real safetensors file"
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise ArtifactError(
                f"{file} is truncated or not a safetensors file: it is {size} bytes long, and its "
                f"header alone would take {8 + length if len(start) == 8 else 8}; get it again"
            )
        header = _parse_header(file, stream.read(length))
    expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != expected:
        raise ArtifactError(
            f"{file} is {'truncated' if size < expected else 'too long'}: its header describes "
            f"{expected} bytes, "
            f"the file has {size}; get it again, or run the step that made it again"
        )


def _parse_header(file: Path, raw: bytes) -> dict[str, Any]:
    header = parse_json(raw, file)
    try:
        header.pop("__metadata__", None)
        for entry in header.values():
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end or not isinstance(entry["dtype"], str):
                raise ValueError(f"impossible entry {entry}")
            if not all(type(n) is int and n >= 0 for n in entry["shape"]):
                raise ValueError(f"impossible shape in {entry}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{file} is damaged: its header of {len(raw)} bytes is not that of a safetensors file "
            f"({error}); get it again"
        ) from error
    if len(header) > MAX_TENSORS:
        raise ArtifactError(
            f"{file} holds {len(header):,} tensors, at most {MAX_TENSORS:,} are read; get the "
            "model again"
        )
    return header
