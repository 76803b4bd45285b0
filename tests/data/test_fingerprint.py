"""A key sees every change of the content, and no change of the place."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from attar.data import fingerprint
from attar.data.config import FilesData, GlueData, StdlibDocsData
from attar.data.fingerprint import data_fingerprint
from attar.data.stdlib_areas import stdlib_sources
from attar.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "mine" / "test.csv").write_text("text,label\nc,0\n")
    return tmp_path


def of_files(folder: Path, path: str = "mine") -> str:
    return data_fingerprint(FilesData(path=path), folder)


def test_a_moved_folder_has_the_same_fingerprint(folder: Path, tmp_path: Path) -> None:
    before = of_files(folder)
    shutil.copytree(folder / "mine", tmp_path / "elsewhere" / "data")
    assert of_files(tmp_path / "elsewhere", "data") == before


def test_a_changed_byte_changes_the_fingerprint(folder: Path) -> None:
    before = of_files(folder)
    (folder / "mine" / "test.csv").write_text("text,label\nc,1\n")
    assert of_files(folder) != before


def test_a_file_of_another_split_or_format_changes_the_fingerprint(folder: Path) -> None:
    before = of_files(folder)
    (folder / "mine" / "test.csv").rename(folder / "mine" / "dev.csv")
    moved = of_files(folder)
    (folder / "mine" / "dev.csv").rename(folder / "mine" / "dev.txt")
    assert len({before, moved, of_files(folder)}) == 3


def test_a_file_of_no_split_does_not_change_the_fingerprint(folder: Path) -> None:
    before = of_files(folder)
    (folder / "mine" / "notes.md").write_text("nothing to read")
    (folder / "mine" / "other.csv").write_text("text,label\nz,0\n")
    assert of_files(folder) == before


def test_glue_on_the_hub_is_named_by_task_and_revision() -> None:
    keys = {
        data_fingerprint(GlueData(task="rte", revision=revision), Path())
        for revision in (None, "abc", "def")
    }
    keys.add(data_fingerprint(GlueData(task="wnli"), Path()))
    assert len(keys) == 4


def test_glue_from_files_is_their_content(shared_data: Path) -> None:
    keys = {
        data_fingerprint(GlueData(task=task, path=str(shared_data)), Path())  # type: ignore[arg-type]
        for task in ("wnli", "mnli")
    }
    assert len(keys) == 2


def test_docstrings_of_another_python_have_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = data_fingerprint(StdlibDocsData(), Path())
    assert data_fingerprint(StdlibDocsData(), Path("elsewhere")) == key
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version", "3.99")
        assert data_fingerprint(StdlibDocsData(), Path()) != key
    monkeypatch.setattr(fingerprint, "AREAS", {"everything": ("os",)})
    assert data_fingerprint(StdlibDocsData(), Path()) != key


def test_missing_data_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file at"):
        of_files(tmp_path)


def test_readers_that_read_otherwise_give_every_source_another_fingerprint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = (FilesData(path="mine"), GlueData(task="rte"), StdlibDocsData())
    before = [data_fingerprint(source, folder) for source in sources]
    monkeypatch.setattr(fingerprint, "DATA_VERSION", fingerprint.DATA_VERSION + 1)
    after = [data_fingerprint(source, folder) for source in sources]
    assert not set(before) & set(after)


def test_the_home_folder_may_be_written_as_a_tilde(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    before = of_files(folder)
    elsewhere = tmp_path / "elsewhere"
    assert of_files(elsewhere, "~/mine") == of_files(elsewhere, "~/mine/*.csv") == before
    (folder / "glue" / "rte").mkdir(parents=True)
    (folder / "glue" / "rte" / "train.jsonl").write_text("{}")
    keys = {
        data_fingerprint(GlueData(task="rte", path=path), folder) for path in ("glue", "~/glue")
    }
    assert len(keys) == 1


def test_a_tilde_of_nobody_is_a_name_as_any_other(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no data file at .*/~nobody-of-this-name/mine"):
        of_files(folder, "~nobody-of-this-name/mine")


def test_folders_of_the_library_that_are_no_part_of_it_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    left_out = ("lib-dynload", "test", "site-packages", "__pycache__", "json/tests")
    for inner in ("json", *left_out):
        (tmp_path / inner).mkdir(parents=True)
        (tmp_path / inner / "string.py").touch()
    monkeypatch.setattr("attar.data.stdlib_areas.area_of", lambda source: "everything")
    assert stdlib_sources()[1] == [tmp_path / "json" / "string.py"]
