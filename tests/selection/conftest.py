"""What most tests of a room read: documents, two models, and a corpus scored by both."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import corpora
from attar.step import MadeRows


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents and two models that read them. Read-only by agreement."""
    folder = tmp_path_factory.mktemp("written")
    corpora.write_documents(folder / "texts")
    corpora.write_model(folder / "model", seed=0)
    corpora.write_model(folder / "other", seed=1)
    return folder


@pytest.fixture(scope="module")
def folder(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a folder of a file's own."""
    return shutil.copytree(written, tmp_path_factory.mktemp("room") / "own")


@pytest.fixture(scope="module")
def made(folder: Path) -> MadeRows:
    """A corpus of the documents, scored by both models."""
    made, _ = corpora.tokenized(folder)
    corpora.scored(folder, made, "teacher")
    corpora.scored(folder, made, "reference", "other")
    return made
