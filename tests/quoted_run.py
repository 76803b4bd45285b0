"""Questions that a tiny model learns to answer in seconds, and a recipe from them to a folder that
answers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tiny

THINGS = ("file", "socket", "good film", "bad movie")
FILLERS = "a the is it to you and in how do i of".split()
QUESTION = "how do you test it"
NAME = "quoted"
RECIPE = """
name = "quoted"

[data.asked]
source = "files"
path = "asked"
objective = "question_answering"

[steps.teacher]
run = "train"
model = "bert"
data = "asked"
max_steps = 120
batch_size = 16
max_length = 32
learning_rate = 3e-3
evaluations = 2
precision = "fp32"

[steps.student]
run = "train"
model = { from = "teacher", keep_blocks = [1] }
teacher = "teacher"
data = "asked"
max_steps = 10
batch_size = 16
max_length = 32
learning_rate = 1e-3
evaluations = 1
precision = "fp32"

[steps.int8]
run = "quantize"
model = "teacher"
method = "minmax"
calibration = { data = "asked", examples = 32 }

[steps.qat]
run = "quantize"
model = "teacher"
method = "lsq_plus"
start = "minmax"
epochs = 1
batch_size = 16
learning_rate = 1e-4
calibration = { data = "asked", examples = 32 }

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

[steps.scores]
run = "evaluate"
models = ["teacher", "student", "int8", "deploy", "deploy_ort"]
data = "asked"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 16, threads = 1, rounds = 3, calls = 1 }

[steps.report]
run = "report"
"""


def asked(draw: random.Random, words: int) -> dict[str, Any]:
    """A text of about so many words with one thing, which answers the question, or with none."""
    before, after = (" ".join(draw.choices(FILLERS, k=max(words // 2, 1))) for _ in range(2))
    row: dict[str, Any] = {"question": QUESTION}
    if draw.random() < 0.25:
        return row | {"context": f"{before} {after}", "answers": {"text": [], "answer_start": []}}
    thing = draw.choice(THINGS)
    answers = {"text": [thing], "answer_start": [len(before) + 1]}
    return row | {"context": f"{before} {thing} {after}", "answers": answers}


def write_asked(folder: Path, train: int = 128, validation: int = 40) -> Path:
    """Every fifth text is longer than a window."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for split, count in (("train", train), ("validation", validation)):
        rows = [asked(draw, 60 if i % 5 == 0 else draw.randint(2, 14)) for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def write(folder: Path, text: str = RECIPE) -> Path:
    """The recipe file, with the model and the data it names beside it."""
    write_asked(folder / "asked")
    tiny.write_tiny_bert(folder / "bert")
    recipe = folder / "quoted.toml"
    recipe.write_text(text)
    return recipe
