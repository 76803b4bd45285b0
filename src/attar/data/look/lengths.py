"""Lengths of rows, in tokens or in words, of a bounded number of rows and characters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from attar.data.look.summary import Lengths

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_LENGTHS = 8192
BATCH = 256
"""Number of rows measured together, so that a tokenizer can use all cores."""


@dataclass(frozen=True)
class Measure:
    """A measure of the length of a row."""

    unit: str
    of: Callable[[Sequence[tuple[str, ...]]], Sequence[int]]
    """Rows → the length of each."""
    most_characters: float = math.inf
    """About as many characters are measured of each split, of evenly spread rows."""


def _words(rows: Sequence[tuple[str, ...]]) -> list[int]:
    return [sum(len(text.split()) for text in row) for row in rows]


WORDS = Measure("words", _words)
"""Used if there is no tokenizer."""


def tokens_of(folder: Path) -> Measure:
    """Length in tokens of a model's tokenizer, including special tokens."""
    from attar.special_tokens import open_tokenizer

    return _counted_by(open_tokenizer(folder))


def roughly_tokens_of(
    folder: Path | None, most_bytes: float = math.inf, most_characters: float = math.inf
) -> Measure:
    """Length in tokens of a folder's `tokenizer.json` as it is, without importing transformers; in
    words if there is none.

    Args:
        most_bytes: a larger file is not read.

    Raises:
        ModelError: the file is damaged.
    """
    from attar.special_tokens import tokenizer_as_saved

    tokenizer = None if folder is None else tokenizer_as_saved(folder, most_bytes)
    found = WORDS if tokenizer is None else _counted_by(tokenizer)
    return replace(found, most_characters=most_characters)


def _counted_by(tokenizer: Tokenizer) -> Measure:
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(rows: Sequence[tuple[str, ...]]) -> list[int]:
        inputs = [row[0] if len(row) == 1 else row for row in rows]
        return [len(found.ids) for found in tokenizer.encode_batch_fast(inputs)]

    return Measure("tokens", count)


class Measured:
    """Lengths of every 2^k-th row, with k chosen so that at most MAX_LENGTHS are kept and about as
    many characters are measured as the measure allows."""

    def __init__(self, measure: Measure) -> None:
        self._measure, self._every, self._row = measure, 1, 0
        self._characters = 0.0
        self._waiting: list[tuple[str, ...]] = []
        self._found: list[int] = []

    def add(self, texts: tuple[str, ...]) -> None:
        if self._row % self._every == 0:
            self._waiting.append(texts)
            self._characters += sum(map(len, texts))
        self._row += 1
        if len(self._waiting) == BATCH or self._is_enough:
            self._flush()

    def _flush(self) -> None:
        self._found += self._measure.of(self._waiting) if self._waiting else []
        self._waiting = []
        if len(self._found) >= MAX_LENGTHS or self._is_enough:
            self._found, self._every = self._found[::2], 2 * self._every
            self._characters /= 2

    @property
    def _is_enough(self) -> bool:
        return self._characters > self._measure.most_characters

    def result(self) -> Lengths | None:
        self._flush()
        found = sorted(self._found)
        if not found:
            return None
        at = (len(found) - 1) / 100
        return Lengths(p50=found[round(50 * at)], p95=found[round(95 * at)], longest=found[-1])
