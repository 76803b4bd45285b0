"""Model inputs of an exact shape from real text, for measuring latency and memory.

Latency is reported for B × T tokens, where T is the median length of the data's texts or a given
number. Real batches are not exactly T wide. With padding, runtimes that skip masked tokens would
look faster than they are; random ids would access rare embeddings. So the token ids of the longest
rows are repeated and cut to exactly T, without a mask. All models get the same texts, each with its
own tokenizer.
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
    """The `count` texts with the most characters, longest first; repeated if there are fewer."""
    by_length = sorted(texts, key=lambda text: -sum(map(len, text)))[:count]
    return [by_length[i % len(by_length)] for i in range(count)]


def fixed_tokens(config: EvaluateStep) -> int:
    """Text length for FLOPs and memory: the largest of the fixed lengths, in tokens."""
    return max(
        (length for length in config.timed_lengths if length != "data"),
        default=next(length for length in LENGTHS if length != "data"),
    )


def timed_tokens(config: EvaluateStep, lengths: Iterable[float]) -> tuple[int, ...]:
    """The lengths to time, with "data" resolved to a number.

    Args:
        lengths: number of tokens of each text, with the first model's tokenizer.
    """
    median = max(1, round(float(np.median(list(lengths)))))
    return tuple(
        dict.fromkeys(median if length == "data" else length for length in config.timed_lengths)
    )


def exact_batch(folder: Path, task: Task, texts: Texts, tokens: int) -> dict[str, np.ndarray]:
    """Encode each text as a row of exactly `tokens` ids, int64 (B, T), with an attention mask of
    ones.

    Raises:
        UsageError: `tokens` exceeds the model's maximum length.
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
    """Maximum number of tokens of a model, from its config; None: unknown."""
    config_file = folder / "config.json"
    return room_in(read_json(config_file) if config_file.is_file() else {})


def room_in(config: Mapping[str, Any]) -> int | None:
    """Like `room_of`, from the content of `config.json`."""
    room = positions_of(config) or config.get("max_position_embeddings")
    return room if isinstance(room, int) else None


def check_room(room: int | None, tokens: int, model: str) -> None:
    """Raise UsageError if there are more tokens than the model's maximum, `room`."""
    if room is not None and tokens > room:
        raise UsageError(
            f"texts of {tokens} tokens are to be timed, but the model {model} has {room} "
            f"positions; set lengths = [{room}] or shorter lengths"
        )
