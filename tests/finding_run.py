"""Texts in which a tiny model learns in seconds to find something, and a recipe from them to a
folder that answers: parts of texts that answer a question, or things with a tag for each word."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import tiny

THINGS = ("file", "socket", "good film", "bad movie")
NAMES = {"TOOL": ("file", "socket", "list"), "FILM": ("good film", "bad movie", "great movie")}
WORDS = "a the is it to you and in how do i of".split()
QUESTION = "how do you test it"
QUOTED, TAGGED = "quoted", "tagged"
DEPLOY_FLOAT = """[steps.deploy_float]
run = "export"
model = "teacher"
format = "openvino"
parity = { examples = 16 }

"""
QAT = """[steps.qat]
run = "quantize"
model = "teacher"
method = "lsq_plus"
start = "minmax"
epochs = 1
batch_size = 16
learning_rate = 1e-4
calibration = { data = "rows", examples = 32 }

"""
SETTINGS = {
    QUOTED: {
        **{"objective": "question_answering", "steps": 120, "student_steps": 10, "tokens": 32},
        "more": QAT,
    },
    TAGGED: {
        **{"objective": "token_classification", "steps": 150, "student_steps": 20, "tokens": 24},
        "more": DEPLOY_FLOAT,
    },
}
RECIPE = Template("""
name = "$name"

[data.rows]
source = "files"
path = "rows"
objective = "$objective"

[steps.teacher]
run = "train"
model = "bert"
data = "rows"
max_steps = $steps
batch_size = 16
max_length = $tokens
learning_rate = 3e-3
evaluations = 2
precision = "fp32"

[steps.student]
run = "train"
model = { from = "teacher", keep_blocks = [1] }
teacher = "teacher"
data = "rows"
max_steps = $student_steps
batch_size = 16
max_length = $tokens
learning_rate = 1e-3
evaluations = 1
precision = "fp32"

[steps.int8]
run = "quantize"
model = "teacher"
method = "minmax"
calibration = { data = "rows", examples = 32 }

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

$more[steps.scores]
run = "evaluate"
models = ["teacher", "student", "int8", "deploy", "deploy_ort"]
data = "rows"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 16, threads = 1, rounds = 3, calls = 1 }

[steps.report]
run = "report"
""")


def asked(draw: random.Random, words: int) -> dict[str, Any]:
    """A text of about so many words with one thing, which answers the question, or with none."""
    before, after = (" ".join(draw.choices(WORDS, k=max(words // 2, 1))) for _ in range(2))
    row: dict[str, Any] = {"question": QUESTION}
    if draw.random() < 0.25:
        return row | {"context": f"{before} {after}", "answers": {"text": [], "answer_start": []}}
    thing = draw.choice(THINGS)
    answers = {"text": [thing], "answer_start": [len(before) + 1]}
    return row | {"context": f"{before} {thing} {after}", "answers": answers}


def tagged(draw: random.Random, words: int) -> dict[str, Any]:
    """A sentence of about so many words with one thing or two, and a tag for each word."""
    tokens, tags = [], []
    for _ in range(draw.randint(1, 2)):
        for filler in draw.choices([*WORDS, ",", "."], k=words // 2):
            tokens.append(filler)
            tags.append("O")
        label = draw.choice(list(NAMES))
        for place, word in enumerate(draw.choice(NAMES[label]).split()):
            tokens.append(word)
            tags.append(f"{'I' if place else 'B'}-{label}")
    return {"tokens": tokens, "tags": tags}


def _write(
    folder: Path, row: Callable[[random.Random, int], Any], train: int, validation: int, words: int
) -> Path:
    """Every fifth text is longer than a window, the others have at most so many words."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for split, count in (("train", train), ("validation", validation)):
        rows = [row(draw, 60 if i % 5 == 0 else draw.randint(2, words)) for i in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def write_asked(folder: Path, train: int = 128, validation: int = 40) -> Path:
    return _write(folder, asked, train, validation, words=14)


def write_things(folder: Path, train: int = 96, validation: int = 32) -> Path:
    return _write(folder, tagged, train, validation, words=12)


def write(folder: Path, name: str) -> Path:
    """The recipe file, with the model and the data it names beside it."""
    (write_asked if name == QUOTED else write_things)(folder / "rows")
    tiny.write_tiny_bert(folder / "bert")
    recipe = folder / f"{name}.toml"
    recipe.write_text(RECIPE.substitute(name=name, **SETTINGS[name]))
    return recipe
