"""From word tags to marks in a text, and the number of correct ones.

A word's tag is that of its first token, in the window in which that token is farthest from an end.
A mark is correct if both its ends and its label are.

    F1 = 2 · correct / (predicted + gold), sums over all rows

Used by training's validation, `evaluate` and exported models. Imports no torch.

Letters: N rows, C tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar.data.tables import Marks
from attar.data.windows import WindowEncoder, Windows
from attar.tasks.tagging import OUTSIDE, Mark, marks_of_tags, words_of

Words = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class TaggedRows:
    """Tokenized rows for a tagging model."""

    windows: Windows
    words: Sequence[Words]
    """The words of each row."""
    pieces: Sequence[NDArray[np.int64]]
    """For each row, the index in `windows.encoded.ids` of each word's first token, or −1."""

    @classmethod
    def of(
        cls,
        texts: Sequence[tuple[str, ...]],
        marks: Sequence[Marks | None] | None,
        encoder: WindowEncoder,
    ) -> TaggedRows:
        """Tokenize texts. Words are those of the data, or are split here if the data has none."""
        windows = encoder.encode(texts)
        given = [None if row is None else row.words for row in marks or [None] * len(texts)]
        words = [
            words_of(text[-1]) if of_row is None else of_row
            for text, of_row in zip(texts, given, strict=True)
        ]
        pieces = [windows.first_pieces(row, of_row) for row, of_row in enumerate(words)]
        return cls(windows, words, pieces)

    def tags(
        self, logits: np.ndarray, names: Sequence[str]
    ) -> list[tuple[list[str], NDArray[np.float64]]]:
        """For each row, the tags of its words with their probabilities; a word without a token is
        outside.

        Args:
            logits: of each token of `windows.encoded.ids`, (tokens, C).
        """
        found: list[tuple[list[str], NDArray[np.float64]]] = []
        for pieces in self.pieces:
            values = logits[pieces].astype(np.float64)
            values -= values.max(axis=1, keepdims=True, initial=-np.inf)
            shares = np.exp(values)
            probability = shares.max(axis=1, initial=0.0) / shares.sum(axis=1)
            best = values.argmax(axis=1).tolist()
            has_one = (pieces >= 0).tolist()
            tags = [
                names[int(tag)] if is_read else OUTSIDE
                for tag, is_read in zip(best, has_one, strict=True)
            ]
            found.append((tags, probability))
        return found

    def marks(self, logits: np.ndarray, names: Sequence[str]) -> list[tuple[Mark, ...]]:
        """The marks of each row, in characters.

        Args:
            logits, names: as in `tags`.
        """
        return [
            tuple((a, b, label) for a, b, label, _ in marks)
            for marks in self.probable_marks(logits, names)
        ]

    def probable_marks(
        self, logits: np.ndarray, names: Sequence[str]
    ) -> list[list[tuple[int, int, str, float]]]:
        """The marks of each row, each with the mean probability of its words' tags."""
        # a model trained elsewhere may have no B tags; then I begins a mark
        is_strict = any(name[0] in "BS" for name in names)
        return [
            [
                (words[a][0], words[b - 1][1], label, float(probability[a:b].mean()))
                for a, b, label in marks_of_tags(tags, strict=is_strict)
            ]
            for words, (tags, probability) in zip(self.words, self.tags(logits, names), strict=True)
        ]


def right_and_made(
    found: Sequence[Sequence[Mark]], marked: Sequence[Sequence[Mark]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row, the numbers of correct and predicted marks, (N, 2), and of gold marks, (N,).

    Example:
        >>> right_and_made([[(0, 3, "PER"), (4, 6, "LOC")]], [[(0, 3, "PER"), (4, 7, "LOC")]])
        (array([[1, 2]]), array([2]))
    """
    sums = [
        (len(set(ours) & set(theirs)), len(ours))
        for ours, theirs in zip(found, marked, strict=True)
    ]
    counts = [len(theirs) for theirs in marked]
    return np.array(sums, np.int64).reshape(-1, 2), np.array(counts, np.int64)
