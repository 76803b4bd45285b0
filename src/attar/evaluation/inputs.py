"""Model inputs of an exact shape out of real text, for timing and for memory.

Latency is quoted for B × 128 tokens, and no batch of real rows is exactly 128 wide; padding would
let a runtime that skips masked tokens look faster than it is, and random ids touch embeddings that
no text does. So the longest rows of the data are taken, their real token ids repeated and cut to
exactly T, with nothing masked. All models get the same texts, each through its own tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attar.artifacts import read_json
from attar.data.tokenize import TextEncoder
from attar.errors import UsageError
from attar.models.structure.families import positions_of
from attar.tasks.task import Task

Texts = Sequence[tuple[str, ...]]


def longest_texts(texts: Texts, count: int) -> list[tuple[str, ...]]:
    """The `count` texts with the most characters, longest first; repeated when there are fewer."""
    by_length = sorted(texts, key=lambda text: -sum(map(len, text)))[:count]
    return [by_length[i % len(by_length)] for i in range(count)]


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
            f"speed.tokens is {tokens}, the model {model} has {room} positions; "
            f"set speed.tokens to {room} or less"
        )
