"""Columns in which a row has several labels, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.label_sets import labels_of
from attar.data.tables import TextData
from attar.errors import DataError


def loaded(folder: Path, name: str, content: str, **settings: Any) -> TextData:
    (folder / f"train.{name}").write_text(content)
    (folder / f"validation.{name}").write_text(content)
    config = FilesData(
        path=str(folder), text="text", objective="multi_label", max_set_aside=0.5, **settings
    )
    return load_data(config, folder, name="d")


def test_cells_are_parted_by_the_separator_and_lists_are_read(tmp_path: Path) -> None:
    data = loaded(tmp_path, "csv", 'text,label\nx,b|a\ny,\nz, a \nw,"[""c"", ""b""]"\n')
    assert data.label_names == ("a", "b", "c")
    sets = data.split("train").labels
    assert sets.dtype == np.int8
    assert sets.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert data.metrics == ("micro_f1", "macro_f1")
    assert data.split("train").is_labelled


def test_json_lists_and_another_separator(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": ["b", "a"]}, {"text": "y", "label": []}]
    rows += [{"text": "z", "label": "a; b"}, {"text": "w", "label": None}]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    data = loaded(tmp_path, "jsonl", content, separator=";", label_names=("b", "a"))
    assert data.split("train").labels.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert data.set_aside_counts == {"train: unlabelled": 1, "validation: unlabelled": 1}


def test_an_unknown_label_sets_its_row_aside(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\nx,a\ny,b|a\nz,b\n")
    (tmp_path / "validation.csv").write_text("text,label\nx,a|c\ny,b\n")
    config = FilesData(path=str(tmp_path), text="text", objective="multi_label", max_set_aside=0.5)
    data = load_data(config, tmp_path, name="d")
    assert data.split("validation").labels.tolist() == [[0, 1]]
    assert data.set_aside_counts == {"validation: unknown label 'c'": 1}


def test_one_label_in_all_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 different label "):
        loaded(tmp_path, "csv", "text,label\nx,a\ny,\n")


def test_a_list_that_is_none_is_no_label() -> None:
    assert isinstance(labels_of("[a, b", "|"), Unreadable)
    assert labels_of(3, "|") == [3]
