"""Question answering by BART, which reads the text in both of its stacks: trained, calibrated,
quantized and judged in torch; and a cache of what a tagger answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import attar
import finding_run
import tiny
from attar.artifacts import read_json
from attar.errors import AttarError

SIZES = {"d_model": 32, "max_position_embeddings": 64}
BART: dict[str, Any] = {
    **{"model_type": "bart", **SIZES, "vocab_size": 0},
    **{f"{stack}_layers": 1 for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_dim": 48 for stack in ("encoder", "decoder")},
    **{f"{stack}_attention_heads": 4 for stack in ("encoder", "decoder")},
    **{"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3},
}
OF_BART = """
name = "bart"

[data.asked]
source = "files"
path = "asked"
objective = "question_answering"

[steps.float]
run = "train"
model = "bart"
data = "asked"
max_steps = 4
batch_size = 8
max_length = 32
evaluations = 1
precision = "fp32"

[steps.w6]
run = "quantize"
model = "float"
method = "outlier_suppression"
refine = false
weight_bits = 6
activation_bits = 6
calibration = { data = "asked", examples = 16 }

[steps.scores]
run = "evaluate"
models = ["float", "w6"]
data = "asked"
bootstrap = 100
memory = false
speed = false
"""
CACHED = """
name = "cached"

[data.things]
source = "files"
path = "things"
objective = "token_classification"

[steps.teacher]
run = "train"
model = "bert"
data = "things"
max_steps = 2
batch_size = 16
max_length = 24
evaluations = 1
precision = "fp32"

[steps.kept]
run = "cache"
teacher = "teacher"
data = "things"
max_length = 24

[steps.live]
run = "train"
model = "bert"
teacher = "teacher"
data = "things"
max_steps = 3
batch_size = 16
max_length = 24
evaluations = 1
precision = "fp32"

[steps.from_cache]
run = "train"
model = "bert"
teacher = "kept"
data = "things"
max_steps = 3
batch_size = 16
max_length = 24
evaluations = 1
precision = "fp32"
"""


def test_bart_answers_questions_in_torch_float_and_in_six_bits(tmp_path: Path) -> None:
    finding_run.write_asked(tmp_path / "asked", train=24, validation=8)
    tiny.write_tokenizer(tmp_path / "bart")
    vocabulary = json.loads((tmp_path / "bart" / "tokenizer.json").read_text())["model"]["vocab"]
    from transformers import BartConfig, BartForQuestionAnswering

    config = BartConfig(**{**BART, "vocab_size": len(vocabulary)})
    BartForQuestionAnswering(config).save_pretrained(tmp_path / "bart")
    (tmp_path / "bart.toml").write_text(OF_BART)
    attar.run(tmp_path / "bart.toml", out=tmp_path / "runs", quiet=True)
    models = read_json(tmp_path / "runs/bart/scores/result.json")["metrics"]["models"]
    assert set(models) == {"float", "w6"}
    assert models["w6"]["form"] == "simulated"
    assert 0 <= models["w6"]["squad_f1"]["value"] <= 1
    quantized = read_json(tmp_path / "runs/bart/w6/result.json")["metrics"]
    assert {site["stack"] for site in quantized["sites"].values()} == {"encoder", "decoder"}


def test_a_tagger_learns_from_a_cache_as_from_its_teacher(tmp_path: Path) -> None:
    finding_run.write_things(tmp_path / "things", train=32, validation=8)
    tiny.write_tiny_bert(tmp_path / "bert")
    (tmp_path / "cached.toml").write_text(CACHED)
    attar.run(tmp_path / "cached.toml", out=tmp_path / "runs", quiet=True)
    live, cached = (
        read_json(tmp_path / f"runs/cached/{step}/result.json")["metrics"]["validation"]["loss"]
        for step in ("live", "from_cache")
    )
    assert cached == pytest.approx(live, rel=1e-3)


def test_a_cache_of_parts_of_texts_is_refused(tmp_path: Path) -> None:
    finding_run.write_asked(tmp_path / "asked", train=24, validation=8)
    tiny.write_tiny_bert(tmp_path / "bert")
    data, rest = CACHED.split("[steps.teacher]")
    text = data.replace("token_classification", "question_answering").replace(
        'path = "things"', 'path = "asked"'
    )
    (tmp_path / "cached.toml").write_text(text + "[steps.teacher]" + rest)
    with pytest.raises(AttarError, match=r"a cache stores predictions of one fixed width"):
        attar.run(tmp_path / "cached.toml", out=tmp_path / "runs", quiet=True)
