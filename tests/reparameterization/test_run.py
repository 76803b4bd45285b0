"""The step `fold` in a recipe: a chain is trained, folded, evaluated, taught with and quantized."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import forked
import tiny
import training_runs
from attar.artifacts import read_result
from attar.errors import GateMissedError, ModelError, StoppedError
from attar.models.load import load_model
from attar.reparameterization.config import FoldMetrics, FoldStep
from attar.reparameterization.run import fold

RECIPE = """
name = "folding"
[data.films]
source = "files"
path = "films"
text = "text"
[steps.chain]
run = "train"
model = { from = "bert", ffn = "3w", ffn_expansion = 1.5 }
data = "films"
max_steps = 2
max_length = 24
evaluations = 1
[steps.plain]
run = "fold"
model = "chain"
data = "films"
examples = 16
[steps.again]
run = "fold"
model = "plain"
data = "films"
examples = 16
[steps.student]
run = "train"
model = "plain"
teacher = "plain"
data = "films"
max_steps = 1
max_length = 24
evaluations = 1
[steps.int8]
run = "quantize"
model = "plain"
method = "minmax"
calibration = { data = "films", examples = 16 }
[steps.scores]
run = "evaluate"
models = ["chain", "plain", "int8"]
data = "films"
bootstrap = 100
memory = false
speed = false
[steps.report]
run = "report"
"""


def attar(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return forked.run("attar", *arguments, cwd=folder, timeout=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = training_runs.prepare(tmp_path_factory.mktemp("folding"))
    (folder / "folding.toml").write_text(RECIPE)
    done = attar("run", "folding.toml", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def metrics(folder: Path, step: str) -> Any:
    return read_result(folder / "runs" / "folding" / step).metrics


def weights(folder: Path, step: str) -> bytes:
    return (folder / "runs" / "folding" / step / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_folded_model_is_a_model_like_any_other(folder: Path) -> None:
    plain, chain = metrics(folder, "plain"), metrics(folder, "chain")
    assert plain["variant"] == {"from": "3w", "to": "1w"}
    assert plain["folded"] == 2
    assert plain["certificate"]["examples"] == 16
    assert plain["certificate"]["relative_difference"] < 1e-4
    assert plain["certificate"]["block_error"] < 1e-12
    saved = 2 * (32 * 48 + 48 + 48 * 48 + 48 + 48 * 32 - 32 * 32)
    assert chain["num_params"] - plain["num_params"] == saved
    before, after = plain["parts"]["before"], plain["parts"]["after"]
    assert before["encoder.ffn"]["num_params"] - after["encoder.ffn"]["num_params"] == saved
    scores = metrics(folder, "scores")["models"]
    assert scores["plain"]["accuracy"]["value"] == scores["chain"]["accuracy"]["value"]
    assert metrics(folder, "int8")["num_sites"] > 0
    assert metrics(folder, "student")["steps"] == 1
    page = (folder / "runs" / "folding" / "report" / "index.html").read_text()
    assert "3w → 1w" in page


@pytest.mark.slow
def test_folding_twice_gives_the_same_bytes(folder: Path) -> None:
    assert weights(folder, "again") == weights(folder, "plain")
    assert metrics(folder, "again")["folded"] == 0


@pytest.mark.slow
def test_a_second_run_makes_nothing_again(folder: Path) -> None:
    before = (folder / "runs" / "folding" / "plain" / "result.json").stat().st_mtime_ns
    done = attar("run", "folding.toml", folder=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "runs" / "folding" / "plain" / "result.json").stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films and `bert/`, a classifier whose feed-forwards are chains."""
    folder = training_runs.prepare(tmp_path_factory.mktemp("variant"))
    training_runs.write_chain(folder)
    return folder


def run_fold(folder: Path, out: str = ".", **settings: Any) -> FoldMetrics:
    """Into `<out>/out`."""
    surroundings = {n: settings.pop(n) for n in ("should_stop", "inputs") if n in settings}
    config = FoldStep(**{"model": "chain", "data": "films", "examples": 8, **settings})
    surroundings["recipe_folder"] = folder
    return fold(config, training_runs.context_for(folder / out, **surroundings))


def folded_weights(folder: Path, out: str = ".") -> dict[str, torch.Tensor]:
    return load_file(folder / out / "out" / "model" / "model.safetensors")


def test_a_difference_beyond_the_limit_is_refused(variant: Path) -> None:
    with pytest.raises(GateMissedError, match="nothing was published") as caught:
        run_fold(variant, max_relative_difference=1e-12)
    assert caught.value.exit_code == 6
    assert not (variant / "out" / "model").exists()


def test_a_model_with_its_own_feed_forwards_is_refused(variant: Path) -> None:
    with pytest.raises(ModelError, match="nothing to fold"):
        run_fold(variant, model="bert")


def test_the_folder_says_what_the_model_is(variant: Path) -> None:
    run_fold(variant)
    config = json.loads((variant / "out" / "model" / "config.json").read_text())
    assert config["attar_ffn"] == {"variant": "1w"}
    assert config["model_type"] == "attar_bert"
    assert load_model(variant / "out" / "model").task is not None
    assert tiny.tiny_config("bert").model_type == "bert"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_folded_in_float(variant: Path, dtype: torch.dtype) -> None:
    """They are read as float32, and the product is not rounded to 16 bits again."""
    name = str(dtype).removeprefix("torch.")
    shutil.copytree(variant / "chain", variant / name)
    file = variant / name / "model.safetensors"
    rounded = {key: tensor.to(dtype) for key, tensor in load_file(file).items()}
    save_file(rounded, file, metadata={"format": "pt"})
    found = run_fold(variant, name, model=str(variant / name))
    assert found["certificate"]["relative_difference"] < 1e-4
    made = folded_weights(variant, name)
    assert {tensor.dtype for tensor in made.values()} == {torch.float32}
    place = "bert.encoder.layer.0.output.dense.maps"
    first, second = (rounded[f"{place}.{i}.weight"].double() for i in range(2))
    assert torch.equal(made[f"{place}.0.weight"], (second @ first).float())


def test_a_quantized_model_is_refused(variant: Path) -> None:
    """Its integers are on a grid of their own; what it was quantized from can be folded."""
    quantized = variant / "quantized"
    shutil.copytree(variant / "chain", quantized)
    (quantized / "model.safetensors").rename(quantized / "weights.safetensors")
    (quantized / "qparams.json").write_text("{}")
    with pytest.raises(ModelError, match="holds a quantized model, but a float model is needed"):
        run_fold(variant, model="quantized")


def test_a_stopped_fold_leaves_nothing_and_ends_with_the_same_bytes(variant: Path) -> None:
    run_fold(variant, "whole")
    with pytest.raises(StoppedError):
        run_fold(variant, "stopped", should_stop=lambda: True)
    assert not (variant / "stopped" / "out" / "model").exists()
    run_fold(variant, "stopped")
    whole, again = (variant / name / "out" / "model" for name in ("whole", "stopped"))
    files = sorted(file.name for file in whole.iterdir())
    assert files == sorted(file.name for file in again.iterdir())
    assert all((whole / name).read_bytes() == (again / name).read_bytes() for name in files)
