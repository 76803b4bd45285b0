"""An exported model that answers questions from texts, with no torch in the process.

A long text is read in windows that overlap, so all of it is read. Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attar.data.windows import WindowEncoder
from attar.escaping import for_terminal
from attar.export.deployed import BATCH_SIZE, MOST_LABEL, Deployed, as_rows
from attar.scoring.quoting import QuotedRows
from attar.scoring.rows import longest_first, score_tokens


@dataclass(frozen=True)
class Quotation:
    """The part of a text that answers a question."""

    text: str
    """"": the text does not answer it."""
    start: int
    """Its first character."""
    end: int
    """The character behind its last; equal to `start` where there is no answer."""
    probability: float
    """Of this answer among all parts of the text and none, 0 to 1."""


@dataclass(frozen=True)
class Quoted:
    """An answer, and how long it took."""

    answer: Quotation
    milliseconds: float
    """Of all questions that were asked together, over their number."""
    is_cut: bool = False
    """Whether the question has more tokens than fit."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self.answer), "milliseconds": self.milliseconds, "is_cut": self.is_cut}

    def text(self) -> str:
        found = self.answer
        text = for_terminal(found.text, MOST_LABEL) if found.text else "no answer"
        place = f" [{found.start}:{found.end}]" if found.text else ""
        return f"{text}{place}  {found.probability:.3f}  {self.milliseconds:.1f} ms"


class Quoter(Deployed):
    """An exported model that answers questions from texts."""

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        super().__init__(folder, threads)
        self._windows = WindowEncoder(self.folder, self.task)

    def answer(self, pairs: Sequence[tuple[str, str]]) -> list[Quotation]:
        """The answer to each (question, text), in the order given.

        Raises:
            UsageError: one pair instead of a list of them, something that is not text, or the
                process was forked after loading.
            NonFiniteError: the model gives NaN or an infinity.
        """
        return [quoted.answer for quoted in self.answers(pairs)]

    def answers(self, rows: Sequence[str | tuple[str, str]]) -> list[Quoted]:
        """The same with the time it took. Raises: as `answer`."""
        self._require_own_process()
        texts = as_rows(rows, 2, "answer")
        if not texts:
            return []
        started = time.perf_counter()
        read = QuotedRows.of(texts, self._windows)
        encoded = read.windows.encoded
        logits = score_tokens(
            self._runtime.logits,
            encoded,
            longest_first(encoded.lengths, BATCH_SIZE),
            f"the model in {self.folder}",
            padded=self._padded,
        )
        threshold = self.task.no_answer_threshold
        quotes = read.quotes(logits)
        each_ms = (time.perf_counter() - started) * 1e3 / len(texts)
        is_cut = encoded.is_cut[read.windows.first[:-1]]
        answers: list[Quoted] = []
        for (_, text), quote, cut in zip(texts, quotes, is_cut.tolist(), strict=True):
            a, b, share = quote.begin, quote.end, quote.probability
            if not quote.is_given(threshold):
                a, b, share = 0, 0, quote.no_answer_probability
            answers.append(Quoted(Quotation(text[a:b], a, b, share), each_ms, cut))
        return answers
