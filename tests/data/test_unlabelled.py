"""Texts that nobody has labelled, beside labelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from attar.data.config import FilesData
from attar.data.fingerprint import data_fingerprint
from attar.data.load import load_data
from attar.data.tables import UNLABELLED, UNLABELLED_SPLIT, TextData
from attar.errors import DataError

ROWS = {
    "train": "text,label\ngood film,pos\nbad film,neg\nfine,pos\n",
    "validation": "text,label\ngood,pos\nbad,neg\n",
    "raw": "text,label\none,other\ngood,pos\ntwo,\nbad film,\n",
}


def loaded(folder: Path, **settings: Any) -> TextData:
    for split, content in ROWS.items():
        (folder / f"{split}.csv").write_text(content)
    settings = {"path": str(folder), "text": "text", **settings}
    return load_data(FilesData(**settings), folder, name="d")


@pytest.mark.parametrize("named", ["raw", "raw.csv"])
def test_unlabelled_rows_stand_beside_train_and_their_labels_are_not_read(
    tmp_path: Path, named: str
) -> None:
    data = loaded(tmp_path, unlabelled=named)
    assert len(data.split("train", labelled=True)) == 3
    unlabelled = data.splits[UNLABELLED_SPLIT]
    assert unlabelled.texts == (("one",), ("two",))
    assert unlabelled.labels.tolist() == [UNLABELLED] * 2
    assert data.label_names == ("neg", "pos")
    assert data.taught.texts == (*data.split("train").texts, ("one",), ("two",))
    assert (data.taught.num_unlabelled, loaded(tmp_path).taught.num_unlabelled) == (2, 0)


def test_a_text_that_another_split_has_is_set_aside(tmp_path: Path) -> None:
    data = loaded(tmp_path, unlabelled="raw")
    found = {(fault.row, fault.reason) for fault in data.set_aside}
    assert found == {(1, "also in validation"), (3, "also in train")}


def test_a_file_beside_a_single_file_may_be_named(tmp_path: Path) -> None:
    data = loaded(tmp_path, path=str(tmp_path / "train.csv"), unlabelled="raw.csv")
    assert len(data.splits[UNLABELLED_SPLIT]) >= 2
    assert {"train", "validation"} <= set(data.splits)


def test_without_a_train_file_they_are_what_is_learned_from(tmp_path: Path) -> None:
    for split in ("validation", "raw"):
        (tmp_path / f"{split}.csv").write_text(ROWS[split])
    config = FilesData(path=str(tmp_path), text="text", unlabelled="raw")
    data = load_data(config, tmp_path, name="d")
    assert data.label_names == ("neg", "pos")
    assert data.split("train").texts == (("one",), ("two",), ("bad film",))
    with pytest.raises(DataError, match=r"rows without a label \(3 of 3\)"):
        data.split("train", labelled=True)
    (tmp_path / "validation.csv").unlink()
    with pytest.raises(DataError, match=r"only unlabelled texts.* validation"):
        load_data(config, tmp_path, name="d")


def test_a_changed_unlabelled_file_changes_the_data(tmp_path: Path) -> None:
    loaded(tmp_path, unlabelled="raw")
    with_it, without = (
        FilesData(path=str(tmp_path), text="text", unlabelled=name) for name in ("raw", None)
    )
    before = data_fingerprint(with_it, tmp_path), data_fingerprint(without, tmp_path)
    (tmp_path / "raw.csv").write_text("text\nthree\n")
    assert data_fingerprint(with_it, tmp_path) != before[0]
    assert data_fingerprint(without, tmp_path) == before[1]


def test_a_file_that_is_not_there_and_an_objective_without_labels_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=r"unlabelled = 'rwa', but .* has no file of that stem"):
        loaded(tmp_path, unlabelled="rwa")
    for objective in ("text_to_text", "causal_lm"):
        with pytest.raises(ValidationError, match="remove unlabelled"):
            FilesData(path="x", objective=objective, unlabelled="raw")
