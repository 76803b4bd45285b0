"""A decoder and an encoder-decoder, trained, quantized and scored by one recipe; not exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import language_runs
import tiny_recipe
from attar.errors import DataError, ModelError
from attar.export.lowering import float_graph
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe

RECIPE = """
name = "decoders"
seed = 3

[data.text]
source = "files"
path = "text"
text = "text"
objective = "causal_lm"

[data.pairs]
source = "files"
path = "pairs"
text = "text"
target = "target"
objective = "text_to_text"

[steps.llama_float]
run = "train"
model = "llama"
data = "text"
max_steps = 24
batch_size = 8
max_length = 16
evaluations = 1
learning_rate = 3e-3
precision = "fp32"

[steps.llama_int8]
run = "quantize"
model = "llama_float"
method = "smoothquant"
calibration = { data = "text", examples = 16 }

[steps.llama_scores]
run = "evaluate"
models = ["llama_float", "llama_int8"]
data = "text"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 8, threads = 1, rounds = 3, calls = 1 }

[steps.t5_float]
run = "train"
model = "t5"
data = "pairs"
max_steps = 24
batch_size = 8
max_length = 12
max_target_length = 6
evaluations = 1
learning_rate = 3e-3
precision = "fp32"

[steps.t5_int8]
run = "quantize"
model = "t5_float"
method = "minmax"
calibration = { data = "pairs", examples = 16 }

[steps.t5_scores]
run = "evaluate"
models = ["t5_float", "t5_int8"]
data = "pairs"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 8, threads = 1, rounds = 3, calls = 1 }
"""
KIND = {"llama": ("causal_lm", "nll"), "t5": ("text_to_text", "rouge1")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoders")
    language_runs.write_running_text(folder / "text")
    language_runs.write_pairs(folder / "pairs")
    language_runs.write_random(folder / "llama", "llama", objective="causal_lm")
    generation = {"max_new_tokens": 4}
    language_runs.write_random(
        folder / "t5", "t5_gated", objective="text_to_text", generation=generation
    )
    file = folder / "decoders.toml"
    file.write_text(RECIPE)
    done = tiny_recipe.attar("run", file, "--out", folder / "runs", timeout=280)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "decoders"


def metrics_of(run: Path, step: str) -> Any:
    return json.loads((run / step / "result.json").read_text())["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_eight_bits_score_as_the_float_model_does(run: Path, family: str) -> None:
    scores = metrics_of(run, f"{family}_scores")["models"]
    whole, few = scores[f"{family}_float"], scores[f"{family}_int8"]
    assert (whole["form"], few["form"]) == ("float", "simulated")
    assert whole["num_params"] == few["num_params"]
    assert whole["flops"] == few["flops"]
    assert few["size_mib"] < 0.6 * whole["size_mib"]
    metric = KIND[family][1]
    assert few[metric]["value"] == pytest.approx(whole[metric]["value"], abs=0.05)


@pytest.mark.slow
def test_perplexity_is_reported_of_both(run: Path) -> None:
    scores = metrics_of(run, "llama_scores")["models"]
    values = [scores[name]["nll"]["value"] for name in ("llama_float", "llama_int8")]
    assert values[0] != values[1]
    assert max(values) < 3.5, "the model learned"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_export_refuses_it_with_what_it_knows(run: Path, family: str) -> None:
    with pytest.raises(ModelError, match="export supports encoders"):
        float_graph(run / f"{family}_float" / "model")


@pytest.mark.slow
def test_the_plan_counts_what_calibrates(run: Path) -> None:
    recipe = run.parent.parent / "decoders.toml"
    plan = plan_recipe(load_recipe(recipe), recipe.parent)
    work = {step.name: step.flops for step in plan.steps}
    assert work["llama_int8"] > 0 and work["t5_int8"] > 0
    with pytest.raises(DataError, match=r"needs 500 examples, .* training blocks of 16 tokens"):
        plan_recipe(
            load_recipe(recipe, ["steps.llama_int8.calibration.examples=500"]), recipe.parent
        )
