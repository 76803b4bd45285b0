"""Opens exported models of any task, with one class per type of answer.

    row      Deployed   predict(texts)       class or number of each text
    rank     Deployed   rank(query, texts)   texts ranked by relevance to a query
    vector   Deployed   embed(texts)         embedding of each text
    tags     Tagger     tag(texts)           entities in each text
    quote    Quoter     answer(pairs)        span of a text that answers a question

The last two read long texts in overlapping windows. Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attar.data.reading.marks import joined
from attar.data.tables import Marks
from attar.data.windows import WindowEncoder, Windows
from attar.errors import UsageError
from attar.escaping import for_terminal
from attar.export.deployed import BATCH_SIZE, MOST_LABEL, Deployed, as_rows, require_unicode
from attar.scoring.quoting import QuotedRows
from attar.scoring.rows import longest_first, score_tokens
from attar.scoring.tagging import TaggedRows
from attar.tasks.table import Answer
from attar.tasks.task import Task


class _ReaderInWindows(Deployed):
    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        super().__init__(folder, threads)
        self._windows = WindowEncoder(self.folder, self.task)

    def _logits_of(self, windows: Windows) -> np.ndarray:
        """Logits of each token of all windows, (tokens, C)."""
        batches = longest_first(windows.encoded.lengths, BATCH_SIZE)
        model = f"the model in {self.folder}"
        logits = self._runtime.logits
        return score_tokens(logits, windows.encoded, batches, model, padded=self._padded)


@dataclass(frozen=True)
class Entity:
    """An entity in a text."""

    text: str
    label: str
    start: int
    """Offset of its first character. For a list of words, in the words joined by spaces."""
    end: int
    """Offset after its last character."""
    probability: float
    """Mean probability of its words' tags, 0 to 1."""


@dataclass(frozen=True)
class Tagged:
    """The entities of one text, and the time taken."""

    entities: list[Entity]
    milliseconds: float
    """Time of the call, divided by the number of texts."""
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


class Tagger(_ReaderInWindows):
    """An exported token classifier."""

    def tag(self, texts: Sequence[str | Sequence[str]]) -> list[list[Entity]]:
        """Find the entities of every text, in input order. A text is a string or a list of words.

        Raises: as `Deployed.predict`.
        """
        return [tagged.entities for tagged in self.answers(texts)]

    def answers(self, rows: Sequence[str | Sequence[str]]) -> list[Tagged]:
        """Like `tag`, with the time taken. Raises: as `tag`."""
        self._require_own_process()
        texts, marks = _texts_and_words(rows)
        if not texts:
            return []
        self._warm_up(self.answers, rows)
        started = time.perf_counter()
        tagged = TaggedRows.of([(text,) for text in texts], marks, self._windows)
        logits = self._logits_of(tagged.windows)
        found = tagged.probable_marks(logits, self.task.label_names)
        each_ms = (time.perf_counter() - started) * 1e3 / len(texts)
        return [
            Tagged([Entity(text[a:b], label, a, b, share) for a, b, label, share in marks], each_ms)
            for text, marks in zip(texts, found, strict=True)
        ]


def _texts_and_words(rows: Any) -> tuple[list[str], list[Marks | None]]:
    """Strings unchanged; lists of words joined by spaces, with the position of each word."""
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


@dataclass(frozen=True)
class Quotation:
    """The span of a text that answers a question."""

    text: str
    """The answer; "" if the text does not contain one."""
    start: int
    """Offset of its first character."""
    end: int
    """Offset after its last character; equal to `start` if there is no answer."""
    probability: float
    """Probability of this answer among all spans of the text and no answer, 0 to 1."""


@dataclass(frozen=True)
class Quoted:
    """An answer, and the time taken."""

    answer: Quotation
    milliseconds: float
    """Time of the call, divided by the number of questions."""
    is_cut: bool = False
    """Whether the question was truncated."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self.answer), "milliseconds": self.milliseconds, "is_cut": self.is_cut}

    def text(self) -> str:
        found = self.answer
        text = for_terminal(found.text, MOST_LABEL) if found.text else "no answer"
        place = f" [{found.start}:{found.end}]" if found.text else ""
        return f"{text}{place}  {found.probability:.3f}  {self.milliseconds:.1f} ms"


class Quoter(_ReaderInWindows):
    """An exported model for extractive question answering."""

    def answer(self, pairs: Sequence[tuple[str, str]]) -> list[Quotation]:
        """Answer each (question, text) pair, in input order.

        Raises: as `Deployed.predict`.
        """
        return [quoted.answer for quoted in self.answers(pairs)]

    def answers(self, rows: Sequence[str | tuple[str, str]]) -> list[Quoted]:
        """Like `answer`, with the time taken. Raises: as `answer`."""
        self._require_own_process()
        texts = as_rows(rows, 2, "answer")
        if not texts:
            return []
        self._warm_up(self.answers, texts)
        started = time.perf_counter()
        read = QuotedRows.of(texts, self._windows)
        threshold = self.task.no_answer_threshold
        quotes = read.quotes(self._logits_of(read.windows))
        each_ms = (time.perf_counter() - started) * 1e3 / len(texts)
        is_cut = read.windows.encoded.is_cut[read.windows.first[:-1]]
        answers: list[Quoted] = []
        for (_, text), quote, cut in zip(texts, quotes, is_cut.tolist(), strict=True):
            a, b, share = quote.begin, quote.end, quote.probability
            if not quote.is_given(threshold):
                a, b, share = 0, 0, quote.no_answer_probability
            answers.append(Quoted(Quotation(text[a:b], a, b, share), each_ms, cut))
        return answers


OPENED: Mapping[Answer, type[Deployed]] = {
    "row": Deployed,
    "rank": Deployed,
    "vector": Deployed,
    "tags": Tagger,
    "quote": Quoter,
}
"""Type of answer → class that gives it."""


def open_exported(folder: str | Path, threads: int | None = None) -> Deployed:
    """Open an exported folder.

    Args:
        threads: number of cores to use; None: all available to this process.
    Raises:
        ArtifactError: the folder is not an exported model, or is damaged.
    """
    from attar.models.deployed.runtimes import Deployment

    Deployment.read(Path(folder))  # raises if it is not an exported model
    answer = Task.read(Path(folder)).kind.answer
    return OPENED.get(answer, Deployed)(folder, threads)  # raises for tasks that cannot be exported
