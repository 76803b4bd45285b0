"""What a data set is, in 16 characters: the part of a step's key that changes when its data
changes.

The problem: a step is reused while its key is the same, so the key must see a changed row and must
not see a moved folder. The idea: hash content and not names of places: the bytes of each split's
files; for the docstrings, the Python they come from with the names and sizes of its sources and the
table of areas; for the hub (with its revision, if one is pinned), the data set and the task. A
later attar may read the same bytes otherwise, so the version of the readers is hashed with them.

Left out: the hub's newest revision, which is unknown until it is asked; pin one to be safe.
Imports neither torch nor numpy, so that a recipe is checked in milliseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attar.artifacts import key_of, sha256_of
from attar.data.config import DataConfig, GlueData, StdlibDocsData, SummarizationData
from attar.data.reading.locate import SplitFiles, glue_files, own_files, summarization_files
from attar.data.stdlib_areas import AREAS, stdlib_sources

DATA_VERSION = 2
"""Raise it with every change after which the same files give other rows, labels or splits."""


def data_fingerprint(
    config: DataConfig, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> str:
    """A key of the content that `config` names; equal keys mean equal rows.

    Args:
        sha256: what hashes a file; the default reads every byte.
    Raises:
        DataError: the data is not there.
    """
    content = _content(config, recipe_folder, sha256)
    return key_of({"version": DATA_VERSION, "source": config.source, "content": content})


def _content(config: DataConfig, recipe_folder: Path, sha256: Callable[[Path], str]) -> Any:
    if isinstance(config, StdlibDocsData):
        root, sources = stdlib_sources()
        return {
            "python": [sys.implementation.name, sys.version],
            "sources": [[str(file.relative_to(root)), file.stat().st_size] for file in sources],
            "areas": {area: list(modules) for area, modules in AREAS.items()},
        }
    if isinstance(config, GlueData):
        if config.path is None:
            return {"hub": "nyu-mll/glue", "task": config.task, "revision": config.revision}
        return _hashes(glue_files(config, recipe_folder), sha256)
    if isinstance(config, SummarizationData):
        if config.path is None:
            return {"hub": "summarization", "task": config.task, "revision": config.revision}
        return _hashes(summarization_files(config, recipe_folder), sha256)
    return _hashes(own_files(config, recipe_folder), sha256)


def _hashes(files: SplitFiles, sha256: Callable[[Path], str]) -> dict[str, list[list[str]]]:
    """A file's ending is part of what it says: the same bytes read as .csv and as .txt are two data
    sets."""
    return {
        split: [["".join(path.suffixes), sha256(path)] for path in paths]
        for split, paths in files.items()
    }
