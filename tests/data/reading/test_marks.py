"""Tags, spans and answers in every form become the same marks; what is faulty says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tables import TextData
from attar.errors import DataError

TEXT = "Ann Lee met Bo in New York"
TOKENS = TEXT.split()
MARKS = ((0, 7, "PER"), (12, 14, "PER"), (18, 26, "LOC"))
NAMES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
IOB2 = ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "I-LOC"]
TAGGED: dict[str, dict[str, Any]] = {
    "iob2": {"tokens": TOKENS, "tags": IOB2},
    "iob1": {"words": TOKENS, "ner_tags": ["I-PER", "I-PER", "O", "I-PER", "O", "I-LOC", "I-LOC"]},
    "bioes": {"tokens": TOKENS, "labels": ["B-PER", "E-PER", "O", "S-PER", "O", "B-LOC", "E-LOC"]},
    "numbers": {"tokens": TOKENS, "ner_tags": [NAMES.index(tag) for tag in IOB2]},
    "spans": {"text": TEXT, "spans": [{"start": a, "end": b, "label": c} for a, b, c in MARKS]},
    "lists": {"text": TEXT, "entities": [list(mark) for mark in reversed(MARKS)]},
}
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "counts": ({"tokens": TOKENS, "tags": IOB2[1:]}, "numbers of tags and words differ"),
    "no prefix": ({"tokens": TOKENS, "tags": ["NOUN"] * 7}, "not one of O, B-"),
    "numbers": ({"tokens": TOKENS, "tags": [0] * 7}, "numbers beyond label_names"),
    "outside": ({"text": TEXT, "tags": [[20, 40, "LOC"]]}, "not inside its text"),
    "nested": ({"text": TEXT, "tags": [[0, 7, "PER"], [4, 7, "PER"]]}, "spans overlap"),
    "other": ({"tokens": ["Rome"], "tags": ["B-CITY"]}, "unknown label 'CITY'"),
}
CONTEXT = "Ann lives in New York."
ANSWERED: dict[str, dict[str, Any]] = {
    "hub": {"answers": {"text": ["New York"], "answer_start": [13]}},
    "squad": {"answers": [{"text": "New York", "answer_start": 13}]},
    "columns": {"answers": ["New York"], "answer_start": [13]},
}


def loaded(folder: Path, *rows: dict[str, Any], **settings: Any) -> TextData:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    validation = "".join(json.dumps(row) + "\n" for row in rows[:1])
    (folder / "validation.jsonl").write_text(validation)
    return load_data(FilesData(path=str(folder), **settings), folder, name="rows")


@pytest.mark.parametrize("form", TAGGED)
def test_tags_and_spans_of_every_form_are_the_same_marks(tmp_path: Path, form: str) -> None:
    settings: dict[str, Any] = {"objective": "token_classification"}
    if form == "numbers":
        settings["label_names"] = tuple(NAMES)
    data = loaded(tmp_path, TAGGED[form], **settings)
    split = data.split("train", labelled=True)
    assert split.texts[0] == (TEXT,)
    assert split.marks is not None
    assert split.marks[0] is not None
    assert split.marks[0].marks == MARKS
    assert data.label_names == tuple(NAMES)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_row_is_set_aside_with_its_reason(tmp_path: Path, fault: str) -> None:
    row, reason = FAULTS[fault]
    good = {**TAGGED["spans"], "tags": TAGGED["spans"]["spans"]} if "text" in row else {}
    good = good or TAGGED["iob2"]
    (tmp_path / "validation.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(good) + "\n")
    (tmp_path / "train.jsonl").write_text(json.dumps(good) + "\n")
    config = FilesData(
        path=str(tmp_path), objective="token_classification", label="tags", max_set_aside=1.0
    )
    data = load_data(config, tmp_path, name="rows")
    assert len(data.split("validation")) == 1
    (said,) = data.set_aside_of("validation")
    assert reason in said


@pytest.mark.parametrize("form", ANSWERED)
def test_answers_of_every_form_are_the_same_marks(tmp_path: Path, form: str) -> None:
    asked = {"question": "Where does Ann live?", "context": CONTEXT}
    none = {**asked, "answers": {"text": [], "answer_start": []}}
    if form == "columns":
        none = {**asked, "answers": [], "answer_start": []}
    rows = ({**asked, **ANSWERED[form]}, {**none, "question": "Why?"})
    data = loaded(tmp_path, *rows, objective="question_answering")
    split = data.split("train", labelled=True)
    assert split.texts[0] == (asked["question"], CONTEXT)
    assert split.marks is not None
    assert [row and row.marks for row in split.marks] == [((13, 21, ""),), ()]
    assert data.label_names == ()


def test_an_answer_that_is_not_where_it_is_said_to_be_is_set_aside(tmp_path: Path) -> None:
    asked = {"question": "Where?", "context": CONTEXT}
    wrong = {**asked, "answers": {"text": ["New York"], "answer_start": [12]}}
    good = {**asked, **ANSWERED["hub"]}
    with pytest.raises(
        DataError, match=r"1 × an answer is not found in the text at its answer_start"
    ):
        loaded(tmp_path, good, wrong, objective="question_answering")


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_the_files_of_squad_are_rows_of_questions(tmp_path: Path, version: str) -> None:
    qas: list[dict[str, Any]] = [
        {"id": "a", "question": "Where?", "answers": [{"text": "New York", "answer_start": 13}]}
    ]
    if version == "2.0":
        qas[0]["is_impossible"] = False
        plausible = [{"text": "Ann", "answer_start": 0}]
        none = {"id": "b", "question": "When?", "answers": [], "is_impossible": True}
        qas.append({**none, "plausible_answers": plausible})
    article = {"title": "Ann", "paragraphs": [{"context": CONTEXT, "qas": qas}]}
    for split, name in (("train", f"train-v{version}.json"), ("dev", f"dev-v{version}.json")):
        article["title"] = split
        (tmp_path / name).write_text(json.dumps({"version": version, "data": [article]}))
    config = FilesData(
        path=str(tmp_path),
        objective="question_answering",
        train=f"train-v{version}",
        validation=f"dev-v{version}",
    )
    split = load_data(config, tmp_path, name="squad").split("validation", labelled=True)
    assert split.texts[0] == ("Where?", CONTEXT)
    assert split.marks is not None
    marks = [row and row.marks for row in split.marks]
    assert marks == [((13, 21, ""),), ()][: len(qas)]


def test_a_json_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text('{"version": 1}')
    config = FilesData(path=str(tmp_path), objective="question_answering")
    with pytest.raises(DataError, match=r"neither a list of objects nor in SQuAD format"):
        load_data(config, tmp_path, name="squad")


def test_questions_about_one_text_are_held_out_together(tmp_path: Path) -> None:
    """Or a model would be judged on texts it has learned from."""
    rows = [
        {"question": f"Where {i}?", "context": f"{CONTEXT} {i // 4}", **ANSWERED["hub"]}
        for i in range(60)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = FilesData(path=str(tmp_path), objective="question_answering")
    data = load_data(config, tmp_path, name="rows")
    contexts = [{text[1] for text in data.split(s).texts} for s in ("train", "validation")]
    assert contexts[0].isdisjoint(contexts[1])


def test_wnut_17_has_its_published_numbers_of_entities(shared_data: Path) -> None:
    config = FilesData(path="wnut17", objective="token_classification")
    data = load_data(config, shared_data, name="wnut17")
    counts = {
        name: sum(len(row.marks) for row in split.marks or () if row is not None)
        for name, split in data.splits.items()
    }
    assert counts == {"train": 1975, "validation": 836, "test": 1079}
