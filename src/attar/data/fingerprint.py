"""A key of a data set, in 16 characters: it changes whenever the data changes.

The problem: a step is reused as long as its key is the same, so the key must depend on every row
but not on where the folder is. The idea: hash content instead of paths: the bytes of each split's
files; for the standard library's docstrings, the Python version with the names and sizes of its
sources and the table of areas; for the hub, the data set, the task and the revision, if one is
pinned. A later attar may read the same bytes differently, so the version of the readers is
included.

Not covered: an unpinned hub data set, whose newest revision is not known without a request; pin a
revision to be safe. A hub data set that is read as a stream always has one.

Imports neither torch nor numpy, so that a recipe is checked in milliseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attar.artifacts import key_of, sha256_of
from attar.data.config import (
    CorpusData,
    DataConfig,
    FilesData,
    GlueData,
    HubData,
    StdlibDocsData,
    StdlibTextData,
    TextConfig,
)
from attar.data.reading.locate import SplitFiles, own_files, task_files
from attar.data.stdlib_areas import AREAS, stdlib_sources

DATA_VERSION = 2
"""Increase it with every change that makes the same files give other rows, labels or splits."""


def data_fingerprint(
    config: DataConfig, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> str:
    """A key of the content that `config` refers to; equal keys mean equal rows.

    Args:
        sha256: function that hashes a file; the default reads every byte.

    Raises:
        DataError: the data does not exist.
    """
    if isinstance(config, CorpusData):
        return _of_chunks(config, recipe_folder, sha256)
    content = _content(config, recipe_folder, sha256)
    return key_of({"version": DATA_VERSION, "source": config.source, "content": content})


def _of_chunks(config: CorpusData, recipe_folder: Path, sha256: Callable[[Path], str]) -> str:
    """Key of the chunks, combined with that of the validation texts."""
    from attar.data.corpus.published import open_published

    chunks = open_published(config.path, recipe_folder, config.corpus).fingerprint(sha256)
    if config.validation is None:
        return chunks
    return f"{chunks}-{data_fingerprint(config.validation, recipe_folder, sha256)}"


def _content(config: TextConfig, recipe_folder: Path, sha256: Callable[[Path], str]) -> Any:
    if isinstance(config, StdlibDocsData | StdlibTextData):
        root, sources = stdlib_sources()
        return {
            "python": [sys.implementation.name, sys.version],
            "sources": [[str(file.relative_to(root)), file.stat().st_size] for file in sources],
            "areas": {area: list(modules) for area, modules in AREAS.items()},
        }
    files = data_files(config, recipe_folder)
    if isinstance(config, FilesData) and config.document == "file":  # file names are a column here
        named = (files or {}).get("train", ())
        return [[file.parent.name, file.name, sha256(file)] for file in named]
    if files is not None or isinstance(config, FilesData):
        return _hashes(files or {}, sha256)
    if isinstance(config, HubData):
        return {"hub": config.name, "config": config.config, "revision": config.revision}
    hub = "nyu-mll/glue" if isinstance(config, GlueData) else "summarization"
    return {"hub": hub, "task": config.task, "revision": config.revision}


def require_there(config: DataConfig, recipe_folder: Path) -> None:
    """Check that the data that `config` refers to exists, without reading texts.

    Raises:
        DataError, ArtifactError: it does not exist, is not a corpus, or is a damaged one.
    """
    if isinstance(config, CorpusData):
        from attar.data.corpus.published import open_published

        open_published(config.path, recipe_folder, config.corpus)
        if config.validation is not None:
            data_files(config.validation, recipe_folder)
    else:
        data_files(config, recipe_folder)


def data_files(config: TextConfig, recipe_folder: Path) -> SplitFiles | None:
    """The files that contain the texts; None if they are on the hub or part of Python.

    Raises:
        DataError: they do not exist.
    """
    if isinstance(config, FilesData):
        return own_files(config, recipe_folder)
    if isinstance(config, StdlibDocsData | StdlibTextData | HubData) or config.path is None:
        return None
    return task_files(config, recipe_folder)


def _hashes(files: SplitFiles, sha256: Callable[[Path], str]) -> dict[str, list[list[str]]]:
    """Hash of every file. File endings are included: the same bytes read as .csv and as .txt are
    two different data sets."""
    return {
        split: [["".join(path.suffixes), sha256(path)] for path in paths]
        for split, paths in files.items()
    }
