"""Tagging through a whole recipe: trained, distilled, quantized, exported, judged, asked."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import attar
import finding_run
import forked
from attar.artifacts import read_json
from attar.data.reading.records import read_records
from attar.errors import UsageError
from attar.export.predicted_files import predict_file
from attar.progress import Progress

pytestmark = pytest.mark.e2e

TEXT = "how do i do to the good film and you is a socket, of it"
MARKED = [("good film", "FILM"), ("socket", "TOOL")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("tagged")
    attar.run(finding_run.write(folder, finding_run.TAGGED), out=folder / "runs", quiet=True)
    return folder / "runs" / finding_run.TAGGED


def test_a_tiny_model_learns_to_mark_and_eight_bits_lose_nothing(run: Path) -> None:
    models = read_json(run / "scores" / "result.json")["metrics"]["models"]
    assert models["teacher"]["span_f1"]["value"] > 0.9
    assert {models[name]["form"] for name in models} >= {"float", "simulated", "openvino"}
    for name in ("int8", "deploy", "deploy_ort"):
        assert models[name]["span_f1"]["value"] > 0.9
    assert set(models["teacher"]["per_class"]) == {"FILM", "TOOL"}
    low, high = models["teacher"]["span_f1"]["ci95"]
    assert 0 <= low <= models["teacher"]["span_f1"]["value"] <= high <= 1


@pytest.mark.parametrize("step", ["deploy", "deploy_ort", "deploy_float"])
def test_an_exported_model_answers_with_characters_of_the_text(run: Path, step: str) -> None:
    model = attar.load(run / step, threads=1)
    found, nothing = model.tag([TEXT, ""])  # pyright: ignore
    assert [(one.text, one.label) for one in found] == MARKED
    assert all(TEXT[one.start : one.end] == one.text for one in found)
    assert all(0 < one.probability <= 1 for one in found)
    assert not nothing
    long = " ".join(["how do i"] * 30 + [TEXT])  # its end is beyond the first windows
    (from_the_end,) = model.tag([long])  # pyright: ignore
    assert [(one.text, one.label) for one in from_the_end] == MARKED
    (by_words,) = model.tag([TEXT.split()])  # pyright: ignore
    assert [one.label for one in by_words] == ["FILM", "TOOL"]


def test_a_file_of_texts_has_the_marks_of_each(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "texts.txt"
    source.write_text(f"{TEXT}\nhow do i\n")
    model = attar.load(run / "deploy_ort", threads=1)
    expected = [asdict(one) for one in model.tag([TEXT])[0]]  # pyright: ignore
    for end in (".jsonl", ".csv", ".parquet"):
        target = tmp_path / f"marks{end}"
        predict_file(model, source, target, progress=Progress(quiet=True))
        if end == ".parquet":
            found, nothing = pq.read_table(target)["prediction"].to_pylist()
        else:
            marks = [row["prediction"] for row in read_records(target) if isinstance(row, dict)]
            found, nothing = (json.loads(x) if isinstance(x, str) else x for x in marks)
        assert nothing == []
        for one, other in zip(found, expected, strict=True):
            assert one == other | {"probability": pytest.approx(other["probability"], abs=1e-3)}


def test_a_tagger_that_is_asked_for_a_class_says_what_it_answers(run: Path) -> None:
    with pytest.raises(UsageError, match=r"call tag\(…\) instead of predict"):
        attar.load(run / "deploy", threads=1).predict([TEXT])


def test_the_command_and_the_snippet_mark_as_attar_does(run: Path) -> None:
    answer = json.loads(forked.said("attar", "predict", run / "deploy", TEXT, "--json"))
    assert [(one["text"], one["label"]) for one in answer["entities"]] == MARKED
    places = [f"{one['start']} {one['end']}" for one in answer["entities"]]
    for step in ("deploy", "deploy_ort"):
        alone = forked.said(run / step / "predict.py", TEXT)
        said = [
            f"{place} {label} {text}" for place, (text, label) in zip(places, MARKED, strict=True)
        ]
        assert alone.splitlines() == said
