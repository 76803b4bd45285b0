"""Answers from texts through a whole recipe: trained, distilled, quantized, exported, judged,
asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import attar
import finding_run
import forked
from attar.artifacts import read_json
from finding_run import QUESTION

pytestmark = pytest.mark.e2e

TEXT = "how do i do to the good film and you is it of it"
LONG = " ".join(["how do i of it"] * 20 + [TEXT])
WITHOUT = "how do i do to the and you is it of it"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("quoted")
    attar.run(finding_run.write(folder, finding_run.QUOTED), out=folder / "runs", quiet=True)
    return folder / "runs" / finding_run.QUOTED


def test_a_tiny_model_learns_to_answer_and_eight_bits_lose_little(run: Path) -> None:
    models = read_json(run / "scores" / "result.json")["metrics"]["models"]
    for name in ("teacher", "int8", "deploy", "deploy_ort"):
        assert models[name]["squad_f1"]["value"] > 0.9
        assert models[name]["exact_match"]["value"] > 0.85
    validation = read_json(run / "teacher" / "result.json")["metrics"]["validation"]
    task = read_json(run / "teacher" / "model" / "task.json")
    assert task["no_answer_threshold"] == validation["no_answer_threshold"]
    assert models["deploy"]["no_answer_threshold"] == task["no_answer_threshold"]
    trained = read_json(run / "qat" / "result.json")["metrics"]["training"]["validation"]
    chosen = read_json(run / "qat" / "model" / "task.json")["no_answer_threshold"]
    assert chosen == trained["no_answer_threshold"] != task["no_answer_threshold"]


@pytest.mark.parametrize("step", ["deploy", "deploy_ort"])
def test_an_exported_model_answers_with_characters_of_the_text(run: Path, step: str) -> None:
    model = attar.load(run / step, threads=1)
    texts = (TEXT, LONG, WITHOUT)
    found = model.answer([(QUESTION, text) for text in texts])  # pyright: ignore
    assert [one.text for one in found] == ["good film", "good film", ""]
    for text, one in zip(texts, found, strict=True):
        assert text[one.start : one.end] == one.text
        assert 0 < one.probability <= 1


def test_the_command_and_the_snippet_answer_as_attar_does(run: Path) -> None:
    asked = ("predict", run / "deploy", f"{QUESTION}\t{TEXT}", "--json")
    answer = json.loads(forked.said("attar", *asked))
    begin = TEXT.index("good film")
    assert (answer["start"], answer["end"]) == (begin, begin + len("good film"))
    for step in ("deploy", "deploy_ort"):
        program = run / step / "predict.py"
        found = [forked.said(program, QUESTION, text) for text in (TEXT, WITHOUT)]
        assert found[0].split() == [str(begin), str(begin + len("good film")), "good", "film"]
        assert found[1].split() == ["0", "0"]
