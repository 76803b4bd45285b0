"""The step: files, figures, refusals, and a run that goes on where it was stopped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
import training_runs
from attar.artifacts import sha256_of
from attar.data.augmented import ROWS_FILE, read_augmented
from attar.data.config import FilesData
from attar.data.tables import UNLABELLED, Split
from attar.distillation import run as step
from attar.distillation.config import AugmentStep
from attar.errors import ArtifactError, DataError, ModelError, StoppedError, UsageError

SETTINGS: dict[str, Any] = {
    "model": "lm",
    "data": "films",
    "copies": 3,
    "top": 5,
    "max_length": 24,
    "precision": "fp32",
}
ROWS = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model, a classifier, and small data. Read-only by agreement."""
    folder = tmp_path_factory.mktemp("augment")
    tiny.write_tiny_masked_lm(folder / "lm")
    tiny.write_tiny_bert(folder / "bert")
    training_runs.write_films(folder / "films", train=ROWS, validation=8)
    return folder


def augmented(place: Path, out: Path, context: dict[str, Any] | None = None, **settings: Any):
    surroundings = training_runs.context_for(out, recipe_folder=place, **(context or {}))
    surroundings.scratch.mkdir(parents=True, exist_ok=True)
    return step.augment(AugmentStep(**{**SETTINGS, **settings}), surroundings)


def lines_of(out: Path) -> list[dict[str, Any]]:
    with gzip.open(out / "out" / ROWS_FILE, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def train_rows(place: Path) -> list[dict[str, Any]]:
    text = (place / "films" / "train.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_row_gives_its_copies_in_order(place: Path, tmp_path: Path) -> None:
    metrics = augmented(place, tmp_path)
    lines = lines_of(tmp_path)
    assert [(line["row"], line["copy"]) for line in lines] == [
        (row, copy) for row in range(ROWS) for copy in range(3)
    ]
    assert all("label" not in line for line in lines)
    assert (metrics["rows_in"], metrics["rows_out"]) == (ROWS, 3 * ROWS)
    assert metrics["words_replaced_ratio"] == pytest.approx(0.4, abs=0.1)
    assert metrics["words_per_forward"] > 5
    assert metrics["words_asked"] <= sum(len(row["text"].split()) for row in train_rows(place))


def test_with_probability_0_the_rows_are_their_sources(place: Path, tmp_path: Path) -> None:
    metrics = augmented(place, tmp_path, probability=0.0)
    rows = train_rows(place)
    lines = lines_of(tmp_path)
    assert [line["texts"] for line in lines] == [[row["text"]] for row in rows for _ in range(3)]
    assert (metrics["words_replaced_ratio"], metrics["forwards"]) == (0, 0)


def test_kept_labels_are_those_of_the_sources(place: Path, tmp_path: Path) -> None:
    augmented(place, tmp_path, keep_labels=True)
    names = [row["label"] for row in train_rows(place)]
    lines = lines_of(tmp_path)
    assert [("bad", "good")[line["label"]] for line in lines] == [names[r["row"]] for r in lines]


def test_the_same_seed_gives_the_same_bytes_in_any_cut(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = []
    for name, chunk in (("a", 512), ("b", 512), ("c", 7)):
        monkeypatch.setattr(step, "CHUNK_ROWS", chunk)
        augmented(place, tmp_path / name)
        hashes.append((sha256_of(tmp_path / name / "out" / ROWS_FILE), lines_of(tmp_path / name)))
    assert hashes[0] == hashes[1]
    assert hashes[0][1] == hashes[2][1]
    augmented(place, tmp_path / "d", context={"seed": 1})
    assert lines_of(tmp_path / "d") != hashes[0][1]


def test_a_stopped_run_goes_on_and_gives_what_an_uninterrupted_one_gives(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "CHUNK_ROWS", 8)
    whole = augmented(place, tmp_path / "whole")
    asked = iter([False] * 2 + [True] * 99)
    with pytest.raises(StoppedError, match="rows made so far are kept"):
        augmented(
            place,
            tmp_path / "cut",
            context={"should_stop": lambda: next(asked)},
            batch_tokens=999999,
        )
    parts = tmp_path / "cut" / "scratch" / "parts"
    assert len(list(parts.glob("*.json"))) == 2
    (parts / "000000016.jsonl.gz").write_bytes(b"torn")  # killed while it was written
    made = []
    real = step.Augmenter.augment

    def counted(self: Any, rows: Any, first_row: int) -> Any:
        made.append(first_row)
        return real(self, rows, first_row)

    monkeypatch.setattr(step.Augmenter, "augment", counted)
    resumed = augmented(place, tmp_path / "cut", batch_tokens=999999)
    assert made == [16]
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    assert resumed["words_asked"] == whole["words_asked"]


def test_regressions_are_allowed_without_their_scores(tmp_path: Path) -> None:
    tiny.write_tiny_masked_lm(tmp_path / "lm")
    (tmp_path / "films").mkdir()
    for split in ("train", "validation"):
        rows = [{"a": "the film is good", "b": f"a movie {i}", "label": i / 2} for i in range(5)]
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / "films" / f"{split}.jsonl").write_text(text)
    config = FilesData(path="films", text=("a", "b"), objective="regression")
    with pytest.raises(UsageError, match="change with the words; remove keep_labels"):
        augmented(tmp_path, tmp_path, {"data_config": config}, keep_labels=True)
    augmented(tmp_path, tmp_path, {"data_config": config})
    texts = (("the film is good", f"a movie {i}") for i in range(5))
    source = Split(tuple(texts), np.zeros(5, np.float32))
    made = read_augmented(tmp_path / "out", source, data="films")
    assert len(made) == 15
    assert np.isnan(made.labels).all()
    assert {len(texts) for texts in made.texts} == {2}


@pytest.mark.parametrize("model", ["bert", {"from": "bert", "keep_blocks": [0]}])
def test_a_model_that_predicts_no_words_is_refused(
    place: Path, tmp_path: Path, model: object
) -> None:
    with pytest.raises(ModelError, match=r"BertForSequenceClassification.*…ForMaskedLM, such as"):
        augmented(place, tmp_path, model=model)


def test_a_head_that_is_not_in_the_file_is_refused(place: Path, tmp_path: Path) -> None:
    config = json.loads((place / "bert" / "config.json").read_text())
    tiny.write_tiny_bert(tmp_path / "bert")
    config["architectures"] = ["BertForMaskedLM"]
    (tmp_path / "bert" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"cls\.predictions.*is missing"):
        augmented(place, tmp_path, model=str(tmp_path / "bert"))


def test_rows_of_other_data_are_refused(place: Path, tmp_path: Path) -> None:
    augmented(place, tmp_path)
    texts = tuple((row["text"],) for row in train_rows(place))
    same = Split(texts, np.zeros(ROWS, np.int64))
    made = read_augmented(tmp_path / "out", same, data="films")
    assert len(made) == 3 * ROWS
    assert set(made.labels.tolist()) == {UNLABELLED}
    for rows in (range(ROWS - 1), [1, 0, *range(2, ROWS)]):
        others = same.rows(rows)
        with pytest.raises(DataError, match=rf"made from {ROWS} training rows.*not the same texts"):
            read_augmented(tmp_path / "out", others, data="films")


def test_a_damaged_file_is_named(place: Path, tmp_path: Path) -> None:
    augmented(place, tmp_path)
    texts = tuple((row["text"],) for row in train_rows(place))
    same = Split(texts, np.zeros(ROWS, np.int64))
    file = tmp_path / "out" / ROWS_FILE
    file.write_bytes(gzip.compress(b'{"row": 0, "copy": 0}\n'))
    with pytest.raises(ArtifactError, match="line 1, is not an augmented row"):
        read_augmented(tmp_path / "out", same, data="films")


def test_bf16_asks_the_same_words_and_answers_with_words_too(place: Path, tmp_path: Path) -> None:
    exact = augmented(place, tmp_path / "exact")
    short = augmented(place, tmp_path / "short", precision="bf16")
    assert short["words_asked"] == exact["words_asked"]
    assert short["precision"] == "bf16"
    for one, other in zip(lines_of(tmp_path / "exact"), lines_of(tmp_path / "short"), strict=True):
        assert len(one["texts"][0].split()) == len(other["texts"][0].split())
