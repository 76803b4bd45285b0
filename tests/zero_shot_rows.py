"""Rows of all nine zero-shot tasks made up here, and tiny language models that read them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny
from attar.evaluation.zero_shot.tasks import TASKS

LONG = "the list and the map and the socket, " * 12
ROWS: Mapping[str, Sequence[dict[str, Any]]] = {
    "hellaswag": [
        {
            "context": "Sorting: The map is open. the list",
            "choices": ["is read.", "is good and great.", "is not.", "closes."],
            "label": 1,
        },
        {"context": f"Reading: {LONG}.", "choices": ["A.", "A b.", "A b c.", "D."], "label": 0},
    ],
    "lambada": [
        {"context": "The socket is open, so we close the", "target": "socket"},
        {"context": f"{LONG}\n\nclose the", "target": "map"},
    ],
    "winogrande": [
        {
            "contexts": [
                "The map is not the list, so the map",
                "The map is not the list, so the list",
            ],
            "continuation": "is sorted.",
            "label": 0,
        },
        {"contexts": ["A reads", "B reads"], "continuation": "on.", "label": 1},
    ],
    "openbookqa": [
        {"context": "Files are", "choices": ["open", "good", "a map", "great"], "label": 0},
        {"context": "Maps are", "choices": ["sorted", "read", "run", "a"], "label": 2},
    ],
    "arc_easy": [
        {"context": "What is sorted?", "choices": ["a list", "an error", "time"], "label": 0},
        {"context": "What runs?", "choices": ["a", "b", "c", "d", "a test"], "label": 4},
    ],
    "arc_challenge": [
        {"context": "What is open?", "choices": ["a file", "a date", "1", "2"], "label": 0},
        {"context": "What is 2?", "choices": ["a number", "a string"], "label": 1},
    ],
    "piqa": [
        {"context": "open a file", "choices": ["open it", "close it, then open it"], "label": 0},
        {"context": "sort", "choices": ["write the list, sorted", "read it"], "label": 0},
    ],
    "social_iqa": [
        {
            "context": "Kim wrote the test. How would you describe Kim?",
            "choices": ["good", "a good film", "poor"],
            "label": 0,
        },
        {"context": "Ann ran it. Why?", "choices": ["to test it", "to read", "it"], "label": 2},
    ],
    "storycloze": [
        {
            **{f"InputSentence{i}": f"The film is {word}." for i, word in enumerate("abcd", 1)},
            "RandomFifthSentenceQuiz1": 'It said "great", too.',
            "RandomFifthSentenceQuiz2": "It's poor.",
            "AnswerRightEnding": ending,
        }
        for ending in ("1", "2")
    ],
}


def write(folder: Path, tasks: Sequence[str] = tuple(TASKS)) -> Path:
    """The tasks' files, where a step looks for them."""
    for name in tasks:
        (folder / name).mkdir(parents=True)
        if name == "storycloze":
            with (folder / name / "spring2016.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, list(ROWS[name][0]))
                writer.writeheader()
                writer.writerows(ROWS[name])
        else:
            lines = [json.dumps(row) + "\n" for row in ROWS[name]]
            (folder / name / f"{TASKS[name].split}.jsonl").write_text("".join(lines))
    return folder


def write_tokenizer(folder: Path, *, begin: bool = False, end: bool = False) -> int:
    """A byte-level tokenizer learned from the rows; how many tokens it has.

    Args:
        begin, end: whether a text begins, or ends, with a special token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<end>", "<begin>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([json.dumps(rows) for rows in ROWS.values()], trainer)
    if begin or end:
        template = f"{'<begin> ' if begin else ''}$A{' <end>' if end else ''}"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<end>", 0), ("<begin>", 1)]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "<end>", **({"bos_token": "<begin>"} if begin else {})}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


def write_model(folder: Path, family: str, *, positions: int = 64, **tokens: bool) -> Path:
    """A random language model that prefers some tokens to others, as a folder of transformers."""
    import torch

    words = write_tokenizer(folder, **tokens)
    length = {"gpt2": {"n_positions": positions}}.get(
        family, {"max_position_embeddings": positions}
    )
    ids = {"vocab_size": words, "eos_token_id": 0, "bos_token_id": 1, "pad_token_id": 0}
    model = tiny.tiny_language_model(family, seed=len(family), **ids, **length)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    return folder
