"""An exported model that marks parts of texts, with no torch in the process.

A long text is read in windows that overlap, so all of it is read. Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attar.data.reading.marks import joined
from attar.data.tables import Marks
from attar.data.windows import WindowEncoder
from attar.errors import UsageError
from attar.escaping import for_terminal
from attar.export.deployed import BATCH_SIZE, MOST_LABEL, Deployed, require_unicode
from attar.scoring.rows import longest_first, score_tokens
from attar.scoring.tagging import TaggedRows


@dataclass(frozen=True)
class Entity:
    """A marked part of a text."""

    text: str
    label: str
    start: int
    """Its first character; of a list of words, in the words joined by one space each."""
    end: int
    """The character behind its last."""
    probability: float
    """Mean probability of the tags of its words, 0 to 1."""


@dataclass(frozen=True)
class Tagged:
    """What is marked in one text, and how long that took."""

    entities: list[Entity]
    milliseconds: float
    """Of all texts that were asked together, over their number."""
    is_cut: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        found = [
            f"{for_terminal(one.label, MOST_LABEL)} {for_terminal(one.text, MOST_LABEL)} "
            f"[{one.start}:{one.end}] {one.probability:.3f}"
            for one in self.entities
        ]
        return f"{'; '.join(found) or 'nothing'}  {self.milliseconds:.1f} ms"


class Tagger(Deployed):
    """An exported model that tags words."""

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        super().__init__(folder, threads)
        self._windows = WindowEncoder(self.folder, self.task)

    def tag(self, texts: Sequence[str | Sequence[str]]) -> list[list[Entity]]:
        """The marked parts of every text, in the order given. A text is a string, or a list of its
        words.

        Raises:
            UsageError: one string instead of a list of them, something that is not text, or the
                process was forked after loading.
            NonFiniteError: the model gives NaN or an infinity.
        """
        return [tagged.entities for tagged in self.answers(texts)]

    def answers(self, rows: Sequence[str | Sequence[str]]) -> list[Tagged]:
        """The same with the time it took. Raises: as `tag`."""
        self._require_own_process()
        texts, marks = _texts_and_words(rows)
        if not texts:
            return []
        started = time.perf_counter()
        tagged = TaggedRows.of([(text,) for text in texts], marks, self._windows)
        encoded = tagged.windows.encoded
        logits = score_tokens(
            self._runtime.logits,
            encoded,
            longest_first(encoded.lengths, BATCH_SIZE),
            f"the model in {self.folder}",
            padded=self._padded,
        )
        found = tagged.probable_marks(logits, self.task.label_names)
        each_ms = (time.perf_counter() - started) * 1e3 / len(texts)
        return [
            Tagged([Entity(text[a:b], label, a, b, share) for a, b, label, share in marks], each_ms)
            for text, marks in zip(texts, found, strict=True)
        ]


def _texts_and_words(rows: Any) -> tuple[list[str], list[Marks | None]]:
    """Strings as they are, and lists of words joined, with where each word stands."""
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise UsageError(
            f'tag needs a list of texts, got one {type(rows).__name__}; write tag(["…"])'
        )
    texts: list[str] = []
    words: list[Marks | None] = []
    for number, row in enumerate(rows, start=1):
        is_words = isinstance(row, list | tuple) and all(isinstance(word, str) for word in row)
        if not isinstance(row, str) and not is_words:
            raise UsageError(
                f"text {number} has type {type(row).__name__}; allowed are a string or a list of "
                "words"
            )
        text, places = (row, None) if isinstance(row, str) else joined(row)
        require_unicode((text,), f"text {number}")
        texts.append(text)
        words.append(None if places is None else Marks((), places))
    return texts, words
