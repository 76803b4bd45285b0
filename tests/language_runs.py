"""Small learnable data and tiny models for the objectives of language models."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tiny
from attar.data.config import FilesData

ORDER = "open the file read the list close the socket write a string sort the map".split()
"""What comes after a word is nearly certain, so a model that learns foresees it."""


def write_running_text(folder: Path, documents: int = 30) -> Path:
    """Documents that walk round one circle of words, from a random place."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)
    for split, count in (("train", documents), ("validation", 8)):
        lines = []
        for _ in range(count):
            start, length = draw.randrange(len(ORDER)), draw.randint(5, 40)
            words = [ORDER[(start + i) % len(ORDER)] for i in range(length)]
            lines.append(json.dumps({"text": " ".join(words)}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_pairs(folder: Path) -> Path:
    """A word in, the word after it out."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(2)
    for split, count in (("train", 64), ("validation", 16)):
        lines = []
        for _ in range(count):
            at = draw.randrange(len(ORDER) - 1)
            lines.append(json.dumps({"text": ORDER[at], "target": ORDER[at + 1]}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_tokenizer(folder: Path) -> int:
    """The tiny tokenizer with an end token; how many tokens it has."""
    tiny.write_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": "[SEP]"}))
    return len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])


def model_config(folder: Path, family: str, **changes: Any) -> dict[str, Any]:
    """A model reference: random weights of a family, with the tokenizer in `folder`."""
    words = write_tokenizer(folder)
    ids = {"vocab_size": words, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2}
    start = {"decoder_start_token_id": 0} if family in ("t5", "bart") else {}
    config = tiny.tiny_config(family, **ids, **start, **changes).to_dict()
    drop = ("architectures", "id2label", "label2id", "dtype", "transformers_version")
    plain = {k: v for k, v in config.items() if k not in drop and v is not None}
    return {"config": plain, "tokenizer": folder.name}


TEXT = FilesData.model_validate({"path": "text", "text": "text", "objective": "causal_lm"})
PAIRS = FilesData.model_validate({"path": "pairs", "text": "text", "objective": "text_to_text"})


def write_random(folder: Path, family: str, **task: Any) -> Path:
    """A model folder with a language head, random weights, and a task of these fields."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from attar.tasks.task import Task

    ids = {"vocab_size": write_tokenizer(folder), "pad_token_id": 0, "eos_token_id": 3}
    start = {"decoder_start_token_id": 0} if family in ("t5", "bart") else {"bos_token_id": 2}
    config = tiny.tiny_config(family, **ids, **start)
    builder = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        builder.from_config(config).save_pretrained(folder)
    names = ("input_ids", "attention_mask")
    Task.model_validate({"max_length": 24, "input_names": names, **task}).write(folder)
    return folder


WORDED: dict[str, Any] = {
    "objective": "classification",
    "label_names": ("bad", "good"),
    "label_words": ("poor", "great film"),
    "template": "film: {0}",
}
"""The task of a model that names the classes of films by words."""
