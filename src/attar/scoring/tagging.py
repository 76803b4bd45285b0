"""From a tag a word to marks in a text, and how many of them are right.

A word's tag is that of its first token, in the window in which that token is farthest from an end.
A mark is right where both its ends and its label are.

    F1 = 2 · right / (made + marked), sums over all rows

Training's validation, `evaluate` and an exported model all use it. Imports no torch.
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
    """Rows as a model of tags reads them."""

    windows: Windows
    words: Sequence[Words]
    """Of each row."""
    pieces: Sequence[NDArray[np.int64]]
    """Of each row, the place of each word's first token in `windows.encoded.ids`, or −1."""

    @classmethod
    def of(
        cls,
        texts: Sequence[tuple[str, ...]],
        marks: Sequence[Marks | None] | None,
        encoder: WindowEncoder,
    ) -> TaggedRows:
        """Read texts whose words the data says, or which are cut into words here."""
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
        """Of each row the tags of its words, and their probabilities; a word without a token is
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
        """Of each row the marks, in characters. Args: as of `tags`."""
        return [
            tuple((a, b, label) for a, b, label, _ in marks)
            for marks in self.probable_marks(logits, names)
        ]

    def probable_marks(
        self, logits: np.ndarray, names: Sequence[str]
    ) -> list[list[tuple[int, int, str, float]]]:
        """The same with the mean probability of the tags of a mark's words."""
        # a model trained elsewhere may have no tag that begins a mark, and I then does
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
    """Of each row how many of the marks made are right and how many were made, (N, 2), and how many
    there are, (N,).

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
