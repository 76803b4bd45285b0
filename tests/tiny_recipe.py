"""A whole recipe in a few seconds: a tiny BERT, its half, eight bits, both runtimes, a report.

`write` puts recipe, model and data into a folder; the `tiny_run` fixture has run it once through
the real command, for every test that only looks at what a run leaves behind.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import tiny
import training_runs
from made_once import made_once

NAME = "tiny"
RECIPE = """
name = "tiny"
seed = 3

[data.films]
source = "files"
path = "films"
text = "text"

[steps.teacher]
run = "train"
model = "bert"
data = "films"
max_steps = 2
batch_size = 8
max_length = 24
evaluations = 1

[steps.student]
run = "train"
model = { from = "teacher", keep_blocks = [1] }
teacher = "teacher"
data = "films"
max_steps = 2
batch_size = 8
max_length = 24
evaluations = 1

[steps.int8]
run = "quantize"
model = "student"
method = "minmax"
calibration = { data = "films", examples = 16 }

[steps.deploy]
run = "export"
model = "int8"
format = "openvino"
parity = { examples = 16, max_relative_error = 100.0, max_label_flips = 1.0 }

[steps.deploy_ort]
run = "export"
model = "int8"
format = "onnxruntime"
parity = { examples = 16, max_relative_error = 100.0, max_label_flips = 1.0 }

[steps.scores]
run = "evaluate"
models = ["teacher", "student", "int8", "deploy", "deploy_ort"]
data = "films"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 16, threads = 1, rounds = 3, calls = 1 }

[steps.report]
run = "report"
"""
"""Parity is loose: two steps of training leave a model whose answers hardly differ."""
STEPS = ("teacher", "student", "int8", "deploy", "deploy_ort", "scores", "report")
MISSED_GATE = 'gates=[{ metric = "scores.deploy.accuracy", at_least = 2 }]'
"""For `--set`; no accuracy reaches 2."""
DEADLINE_S = 280


@dataclass(frozen=True)
class TinyRun:
    """A finished run. Read-only by agreement."""

    recipe: Path
    folder: Path
    finished: subprocess.CompletedProcess[str]
    """The command that made it, with `--json`."""


def write(folder: Path, text: str = RECIPE) -> Path:
    """The recipe file, with the model and the data it names beside it."""
    training_runs.write_films(folder / "films")
    tiny.write_tiny_bert(folder / "bert")
    recipe = folder / "tiny.toml"
    recipe.write_text(text)
    return recipe


def run_once(folder: Path) -> TinyRun:
    """Write the recipe and run it with the installed command; once in a folder."""

    def make() -> dict[str, Any]:
        words = command("run", write(folder), "--out", folder / "runs", "--json")
        given = {"capture_output": True, "text": True, "timeout": DEADLINE_S}
        return vars(subprocess.run(words, check=False, **given))

    finished = subprocess.CompletedProcess(**made_once(folder, "run", make))
    return TinyRun(folder / "tiny.toml", folder / "runs" / NAME, finished)


def command(*words: object) -> list[str]:
    """The installed `attar`, beside the Python that runs the tests."""
    return [str(Path(sys.executable).with_name("attar")), *map(str, words)]


def attar(*words: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in a process that need not load torch first."""
    return forked.run("attar", *words, **settings)
