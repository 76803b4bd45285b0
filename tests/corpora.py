"""A tiny corpus: documents of two sources, and a byte-level tokenizer learned from them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = "the old sea was calm; a boat lay still under naïve stars “far” out 🐟 and no wind".split()
END = "<|endoftext|>"


def texts(count: int, seed: int = 0) -> list[str]:
    """Paragraphs of short sentences, with letters of up to four bytes."""
    draw = random.Random(seed)
    return [
        " ".join(
            " ".join(draw.choices(WORDS, k=draw.randint(2, 9))) + draw.choice([".", "!", "?", ";"])
            for _ in range(draw.randint(1, 12))
        )
        for _ in range(count)
    ]


def write_tokenizer(folder: Path) -> Tokenizer:
    """A model folder's tokenizer: byte-level BPE with an end token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(50), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def write_documents(folder: Path, count: int = 60) -> Path:
    """Rows with a text and a source, as data of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"text": text, "source": ("sea", "land")[number % 3 == 0]}
        for number, text in enumerate(texts(count))
    ]
    for split, part in (("train", rows), ("validation", rows[:5])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)) + "\n")
    return folder


def write_model(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A random Llama of two blocks that reads these texts."""
    import torch
    from transformers import AutoModelForCausalLM

    import tiny

    words = write_tokenizer(folder).get_vocab_size()
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    settings = {"vocab_size": words, **special, **changes}
    config = tiny.tiny_config("llama", **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def context(folder: Path, step: str, data: dict[str, Any], **extra: Any):
    """A step's surroundings; what it writes is at `folder/step`."""
    from attar.progress import Progress
    from attar.step import StepContext

    (folder / step).mkdir(parents=True, exist_ok=True)
    return StepContext(
        name=step,
        folder=folder / step,
        scratch=folder / f"{step}.scratch",
        inputs=extra.pop("inputs", {}),
        data=data,
        recipe_folder=folder,
        progress=extra.pop("progress", None) or Progress(quiet=True),
        **extra,
    )


SETTINGS: dict[str, Any] = {
    "data": "texts",
    "tokenizer": "model",
    "max_length": 24,
    "source_column": "source",
    "reserve": 0.25,
    "shard_tokens": 1024,
}


def tokenized(folder: Path, name: str = "corpus", **extra: Any):
    """The tiny corpus, by the real step: what data = "corpus" then stands for, and the metrics."""
    from attar.data.config import FilesData
    from attar.selection.config import TokenizeMetrics, TokenizeStep
    from attar.selection.tokenize import tokenize
    from attar.step import MadeRows

    settings = {**SETTINGS, **extra.pop("settings", {})}
    path, limit = extra.pop("path", "texts"), extra.pop("max_set_aside", 0.01)
    texts = FilesData(
        path=path, text="text", objective="causal_lm", label_names=None, max_set_aside=limit
    )
    step = TokenizeStep(**settings)
    metrics = tokenize(step, context(folder, name, {"texts": texts}, **extra))
    assert metrics.keys() == TokenizeMetrics.__annotations__.keys()
    return MadeRows("", folder / name, step, 0), metrics


def scored(folder: Path, made: Any, name: str, model: str = "model", **extra: Any):
    """Scores of the tiny corpus, by the real step."""
    from attar.selection.config import ScoreMetrics, ScoreStep
    from attar.selection.score import score

    settings = {"batch_tokens": 128, **extra.pop("settings", {})}
    step = ScoreStep(model=model, data="corpus", **settings)
    metrics = score(step, context(folder, name, {"corpus": made}, **extra))
    assert metrics.keys() <= ScoreMetrics.__annotations__.keys()
    return metrics


RECIPE = """
name = "selected"
seed = 3

[data.texts]
source = "files"
path = "texts"
text = "text"
objective = "causal_lm"

[steps.corpus]
run = "tokenize"
data = "texts"
tokenizer = "model"
max_length = 24
source_column = "source"
reserve = 0.25
shard_tokens = 1024

[steps.by_teacher]
run = "score"
model = "model"
data = "corpus"

[steps.by_reference]
run = "score"
model = "other"
data = "corpus"

[steps.kept]
run = "select"
data = "corpus"
teacher = "by_teacher"
reference = "by_reference"

[steps.student]
run = "train"
model = "model"
data = "kept"
max_steps = 3
batch_size = 4
max_length = 24
evaluations = 1
precision = "fp32"

[steps.scores]
run = "evaluate"
models = ["student"]
data = "texts"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 16, threads = 1, rounds = 3, calls = 1 }

[steps.report]
run = "report"
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """The recipe file, with the data and the models it names beside it."""
    write_documents(folder / "texts")
    write_model(folder / "model")
    write_model(folder / "other", seed=1)
    recipe = folder / "selected.toml"
    recipe.write_text(text)
    return recipe
