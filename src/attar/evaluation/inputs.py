"""Model inputs of an exact shape out of real text, for timing and for memory.

Latency is quoted for B × T tokens, and no batch of real rows is exactly T wide; padding would let a
runtime that skips masked tokens look faster than it is, and random ids touch embeddings that no
text does. T is the median length of the data's texts, or a number. So the longest rows of the data
are taken, their real token ids repeated and cut to exactly T, with nothing masked. All models get
the same texts, each through its own tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attar.artifacts import read_json
from attar.data.tokenize import TextEncoder
from attar.errors import UsageError
from attar.evaluation.config import LENGTHS, EvaluateStep
from attar.models.structure.families import positions_of
from attar.tasks.task import Task

Texts = Sequence[tuple[str, ...]]


def longest_texts(texts: Texts, count: int) -> list[tuple[str, ...]]:
    """The `count` texts with the most characters, longest first; repeated when there are fewer."""
    by_length = sorted(texts, key=lambda text: -sum(map(len, text)))[:count]
    return [by_length[i % len(by_length)] for i in range(count)]


def fixed_tokens(config: EvaluateStep) -> int:
    """Tokens of a text of which FLOPs and memory are told: the longest fixed length."""
    return max(
        (length for length in config.timed_lengths if length != "data"),
        default=next(length for length in LENGTHS if length != "data"),
    )


def timed_tokens(config: EvaluateStep, lengths: Iterable[float]) -> tuple[int, ...]:
    """The lengths to time, "data" as a number.

    Args:
        lengths: tokens of each text, as the first model reads it.
    """
    median = max(1, round(float(np.median(list(lengths)))))
    return tuple(
        dict.fromkeys(median if length == "data" else length for length in config.timed_lengths)
    )


def exact_batch(folder: Path, task: Task, texts: Texts, tokens: int) -> dict[str, np.ndarray]:
    """Every text as one row of exactly `tokens` real ids, int64 (B, T), attention mask all 1.

    Raises:
        UsageError: the model has no room for so many tokens.
    """
    check_room(room_of(folder), tokens, f"in {folder}")
    encoder = TextEncoder.from_folder(folder, task.max_length, task.input_names)
    encoded = encoder.encode(texts)
    rows = [encoded.batch([i]) for i in range(len(encoded))]
    return {
        name: np.stack([np.resize(row[name][0], tokens) for row in rows])
        for name in task.input_names
    }


def room_of(folder: Path) -> int | None:
    """Tokens of the longest text a model was made for, by its config; None: it says nothing."""
    config_file = folder / "config.json"
    return room_in(read_json(config_file) if config_file.is_file() else {})


def room_in(config: Mapping[str, Any]) -> int | None:
    """The same, by the content of its `config.json`."""
    room = positions_of(config) or config.get("max_position_embeddings")
    return room if isinstance(room, int) else None


def check_room(room: int | None, tokens: int, model: str) -> None:
    """Refuse more tokens than a model has room for.

    Raises:
        UsageError: with both numbers.
    """
    if room is not None and tokens > room:
        raise UsageError(
            f"texts of {tokens} tokens are to be timed, but the model {model} has {room} "
            "positions; "
            f'set lengths = ["data"], or no length above {room}'
        )
