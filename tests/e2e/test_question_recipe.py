"""Answers from texts through a whole recipe: trained, distilled, quantized, exported, judged,
asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import attar
import finding_run
import forked
import tiny
from attar.artifacts import read_json
from attar.data.reading.records import read_records
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


def test_a_model_without_segments_answers_as_well(tmp_path: Path) -> None:
    """RoBERTa tells question and text apart by their place alone."""
    sizes = (
        "hidden_size = 32, num_hidden_layers = 2, num_attention_heads = 4, type_vocab_size = 1"
        ", intermediate_size = 64, max_position_embeddings = 64, pad_token_id = 0"
    )
    tiny.write_tokenizer(tmp_path / "words")
    words = len(read_json(tmp_path / "words" / "tokenizer.json")["model"]["vocab"])
    model = f'config = {{ model_type = "roberta", vocab_size = {words}, {sizes} }}'
    recipe = finding_run.write(tmp_path, finding_run.QUOTED)
    keep = ("name", "[data.rows]", "[steps.teacher]", "[steps.int8]", "[steps.deploy]")
    parts = [part for part in recipe.read_text().strip().split("\n\n") if part.startswith(keep)]
    reference = f'model = {{ {model}, tokenizer = "bert" }}'
    recipe.write_text("\n\n".join(parts).replace('model = "bert"', reference))
    attar.run(recipe, out=tmp_path / "runs", quiet=True)
    folder = tmp_path / "runs" / finding_run.QUOTED
    task = read_json(folder / "teacher" / "model" / "task.json")
    assert task["input_names"] == ["input_ids", "attention_mask"]
    validation = read_json(folder / "teacher" / "result.json")["metrics"]["validation"]
    assert validation["squad_f1"] > 0.9
    found = attar.load(folder / "deploy", threads=1).answer(  # pyright: ignore
        [(QUESTION, text) for text in (TEXT, WITHOUT)]
    )
    assert [one.text for one in found] == ["good film", ""]


def test_a_file_of_questions_has_answers_with_their_characters(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "asked.csv"
    rows = [("question", "context"), *((QUESTION, text) for text in (TEXT, WITHOUT))]
    source.write_text("\n".join(",".join(row) for row in rows) + "\n")
    begin = TEXT.index("good film")
    predict = ("attar", "predict", run / "deploy_ort", "-i", source, "-o")
    for end in (".jsonl", ".csv", ".parquet"):
        forked.said(*predict, target := tmp_path / f"answers{end}")
        first, second = (row for row in read_records(target) if isinstance(row, dict))
        assert first["prediction"] == "good film"
        assert (int(first["start"]), int(first["end"])) == (begin, begin + len("good film"))
        assert second["prediction"] in ("", None) and first["context"] == TEXT
    refused = forked.run(*predict, tmp_path / "x.npy")
    assert refused.returncode == 2 and "parts of texts" in refused.stderr


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
