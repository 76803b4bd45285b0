"""Extractive question answering: from scores of first and last tokens to the answer in a text, or
none.

    score of a span = logit of its first token as a beginning + that of its last token as an end
    score of none   = the same of a window's first token, the minimum over the windows of a text

The answer is the best span of at most `MAX_ANSWER_TOKENS` tokens over all windows. All spans are
considered; the published code first takes the 20 best beginnings and ends. The probability of an
answer is its softmax share among all spans and "none".

Used by training's validation, `evaluate` and exported models. Imports no torch.

Letters: N rows, T tokens of a text in a window, L maximum number of tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar.data.tables import Marks
from attar.data.windows import NOWHERE, WindowEncoder, Windows
from attar.numerics.squad import best_threshold, exact_match, squad_f1
from attar.tasks.table import MAX_ANSWER_TOKENS

MEASURES = {"squad_f1": squad_f1, "exact_match": exact_match}


@dataclass(frozen=True)
class Quote:
    """The best span of a text."""

    begin: int
    end: int
    """First and last (exclusive) character; equal if the text has no token."""
    no_answer: float
    """Score of "none" minus the score of this span."""
    probability: float
    """Probability of this span, 0..1."""
    no_answer_probability: float

    def is_given(self, threshold: float | None) -> bool:
        """Whether this span is the answer, rather than "none"."""
        return self.begin < self.end and (threshold is None or self.no_answer <= threshold)


@dataclass(frozen=True)
class QuotedRows:
    """Tokenized rows of a question and a text."""

    windows: Windows
    contexts: Sequence[str]

    @classmethod
    def of(cls, texts: Sequence[tuple[str, ...]], encoder: WindowEncoder) -> QuotedRows:
        return cls(encoder.encode(texts), [text[-1] for text in texts])

    def quotes(self, logits: np.ndarray) -> list[Quote]:
        """The best span of each row's text.

        Args:
            logits: of each token of `windows.encoded.ids`, as a beginning and as an end, (tokens,
                2).
        """
        first = self.windows.first
        return [
            self._best(range(first[row], first[row + 1]), logits)
            for row in range(self.windows.num_rows)
        ]

    def _best(self, windows: range, logits: np.ndarray) -> Quote:
        starts = self.windows.encoded.starts
        best = (-np.inf, 0, 0)
        none, total = np.inf, -np.inf
        for window in windows:
            scores = logits[starts[window] : starts[window + 1]].astype(np.float64)
            none = min(none, float(scores[0].sum()))
            places = np.flatnonzero(
                self.windows.begins[starts[window] : starts[window + 1]] != NOWHERE
            )
            if not len(places):
                continue
            parts = _scores_of_parts(scores[places])
            at = int(parts.argmax())
            begin, length = divmod(at, parts.shape[1])
            total = np.logaddexp(total, np.logaddexp.reduce(parts, axis=None))
            if parts.flat[at] > best[0]:
                place = starts[window] + places[begin]
                best = (float(parts.flat[at]), int(place), int(place + length))
        if not np.isfinite(best[0]):
            return Quote(0, 0, np.inf, 0.0, 1.0)
        total = np.logaddexp(total, none)
        return Quote(
            int(self.windows.begins[best[1]]),
            int(self.windows.ends[best[2]]),
            none - best[0],
            float(np.exp(best[0] - total)),
            float(np.exp(none - total)),
        )

    def answers(self, quotes: Sequence[Quote], threshold: float | None) -> list[str]:
        """The text of each answer; "" if there is none."""
        return [
            context[quote.begin : quote.end] if quote.is_given(threshold) else ""
            for context, quote in zip(self.contexts, quotes, strict=True)
        ]


def _scores_of_parts(scores: np.ndarray) -> np.ndarray:
    """Score of each span by beginning and length, (T, L), from scores (T, 2); −∞ beyond the end of
    the text.
    """
    tokens = len(scores)
    longest = min(MAX_ANSWER_TOKENS, tokens)
    ends = np.concatenate([scores[:, 1], np.full(longest - 1, -np.inf)])
    return scores[:, :1] + np.lib.stride_tricks.sliding_window_view(ends, longest)


def golds_of(
    texts: Sequence[tuple[str, ...]], marks: Sequence[Marks | None]
) -> list[tuple[str, ...]]:
    """The gold answers of each row."""
    return [
        () if row is None else tuple(text[-1][begin:end] for begin, end, _ in row.marks)
        for text, row in zip(texts, marks, strict=True)
    ]


def agreement(
    answers: Sequence[str], golds: Sequence[Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Metric → its value for each row, (N,)."""
    return {
        name: np.array([measure(*pair) for pair in zip(answers, golds, strict=True)])
        for name, measure in MEASURES.items()
    }


def threshold_of(
    rows: QuotedRows, quotes: Sequence[Quote], golds: Sequence[Sequence[str]]
) -> float | None:
    """The no-answer threshold with the highest F1 on these rows; None: every row has an answer."""
    has_answer = np.array([bool(of_row) for of_row in golds])
    if has_answer.all():
        return None
    f1 = agreement(rows.answers(quotes, None), golds)["squad_f1"]
    return best_threshold(np.array([quote.no_answer for quote in quotes]), f1, has_answer)
