"""RoBERTa and BART answer questions at 6 bits: the rows of Outlier Suppression's SQuAD recipe, on
tiny models of those families."""

from __future__ import annotations

from pathlib import Path

import pytest

import attar
import finding_run
from attar.artifacts import read_json

pytestmark = pytest.mark.e2e

CONFIGS = {
    "roberta": "hidden_size = 32, num_hidden_layers = 2, num_attention_heads = 4, "
    "intermediate_size = 48",
    "bart": "d_model = 32, encoder_layers = 1, decoder_layers = 1, encoder_attention_heads = 4, "
    "decoder_attention_heads = 4, encoder_ffn_dim = 48, decoder_ffn_dim = 48",
}
STEPS = """
name = "squad"

[data.rows]
source = "files"
path = "rows"
objective = "question_answering"
[steps.plain]
run = "train"
model = {{ config = {{ model_type = "{family}", max_position_embeddings = 40, {config} }}, \
tokenizer = "bert" }}
data = "rows"
max_steps = {steps}
batch_size = 16
max_length = 32
learning_rate = 3e-3
evaluations = 1
precision = "fp32"

[steps.os]
run = "quantize"
model = "plain"
method = "outlier_suppression"
weight_bits = 6
activation_bits = 6
calibration = {{ data = "rows", examples = 32, batch_size = 8 }}

[steps.scores]
run = "evaluate"
models = ["plain", "os"]
data = "rows"
bootstrap = 100
speed = false
memory = false
"""


@pytest.mark.parametrize(("family", "steps", "least"), [("roberta", 60, 0.9), ("bart", 2, 0.0)])
def test_six_bits_answer_nearly_as_float(
    tmp_path: Path, family: str, steps: int, least: float
) -> None:
    finding_run.write(tmp_path, finding_run.QUOTED)  # rows/ and bert/, whose tokenizer is read
    recipe = tmp_path / "squad.toml"
    recipe.write_text(STEPS.format(family=family, config=CONFIGS[family], steps=steps))
    attar.run(recipe, out=tmp_path / "runs", quiet=True)
    result = read_json(tmp_path / "runs" / "squad" / "scores" / "result.json")
    found = {name: of["squad_f1"]["value"] for name, of in result["metrics"]["models"].items()}
    assert found["plain"] >= least
    assert found["os"] == pytest.approx(found["plain"], abs=0.1)
