"""Tagged sentences that a tiny model learns in seconds, and a recipe from them to a folder that
answers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tiny

NAMES = {"TOOL": ("file", "socket", "list"), "FILM": ("good film", "bad movie", "great movie")}
FILLERS = "a the is it to you and in how do i of , .".split()
NAME = "tagged"
RECIPE = """
name = "tagged"

[data.things]
source = "files"
path = "things"
objective = "token_classification"

[steps.teacher]
run = "train"
model = "bert"
data = "things"
max_steps = 150
batch_size = 16
max_length = 24
learning_rate = 3e-3
evaluations = 2
precision = "fp32"

[steps.student]
run = "train"
model = { from = "teacher", keep_blocks = [1] }
teacher = "teacher"
data = "things"
max_steps = 20
batch_size = 16
max_length = 24
learning_rate = 1e-3
evaluations = 1
precision = "fp32"

[steps.int8]
run = "quantize"
model = "teacher"
method = "minmax"
calibration = { data = "things", examples = 32 }

[steps.deploy]
run = "export"
model = "int8"
format = "openvino"
parity = { examples = 16 }

[steps.deploy_ort]
run = "export"
model = "int8"
format = "onnxruntime"
parity = { examples = 16 }

[steps.deploy_float]
run = "export"
model = "teacher"
format = "openvino"
parity = { examples = 16 }

[steps.scores]
run = "evaluate"
models = ["teacher", "student", "int8", "deploy", "deploy_ort"]
data = "things"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 16, threads = 1, rounds = 3, calls = 1 }

[steps.report]
run = "report"
"""


def tagged(draw: random.Random, words: int) -> dict[str, Any]:
    """A sentence of about so many words with one thing or two, and a tag for each word."""
    tokens, tags = [], []
    for _ in range(draw.randint(1, 2)):
        for filler in draw.choices(FILLERS, k=words // 2):
            tokens.append(filler)
            tags.append("O")
        label = draw.choice(list(NAMES))
        for place, word in enumerate(draw.choice(NAMES[label]).split()):
            tokens.append(word)
            tags.append(f"{'I' if place else 'B'}-{label}")
    return {"tokens": tokens, "tags": tags}


def write_things(folder: Path, train: int = 96, validation: int = 32) -> Path:
    """Every fifth sentence is longer than a window of 24 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for split, count in (("train", train), ("validation", validation)):
        rows = [tagged(draw, 60 if i % 5 == 0 else draw.randint(2, 12)) for i in range(count)]
        lines = map(json.dumps, rows)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write(folder: Path, text: str = RECIPE) -> Path:
    """The recipe file, with the model and the data it names beside it."""
    write_things(folder / "things")
    tiny.write_tiny_bert(folder / "bert")
    recipe = folder / "tagged.toml"
    recipe.write_text(text)
    return recipe
