"""Split long texts into windows of `max_length` tokens, keeping each token's characters.

A model that makes a prediction for every token must see the whole text. A text longer than
`max_length` is split into windows that share `overlap` tokens, so that most tokens have context on
both sides. For a token in several windows, the prediction is taken from the window in which it is
farthest from an end (its own window). In a pair (a question and a text), only the text is split,
and the question, at most a third of `max_length`, precedes each window.

    [CLS] question [SEP] tokens 0 … r−1 [SEP]
    [CLS] question [SEP] tokens r−o … 2r−o−1 [SEP]          r: room for tokens, o: overlap

Special tokens are added where the tokenizer adds them to one or two short texts.

Windows are not aligned with sentence ends. Letters: N rows, W windows. Imports no torch.

Source: BERT's code for SQuAD (Devlin et al. 2019), which also uses the window of "maximum context".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from attar.data.tokenize import Encoded, encodings, find_pad_id
from attar.errors import ModelError, UsageError
from attar.special_tokens import open_tokenizer
from attar.tasks.task import Task

Ints = NDArray[np.int32]
NOWHERE = -1
"""Character position of a token that is not part of the text: a special token, or one of the
question."""


@dataclass(frozen=True)
class Windows:
    """The windows of some rows, concatenated."""

    encoded: Encoded
    """One row per window; `is_cut`: its question was truncated."""
    rows: Ints
    """The row of each window, (W,), in increasing order."""
    begins: Ints
    ends: Ints
    """First and last (exclusive) character of each token of `encoded.ids`."""
    own: NDArray[np.int64]
    """For each token of the texts, row by row: its index in `encoded.ids`, in its own window."""
    starts: NDArray[np.int64]
    """The tokens of row i are own[starts[i]:starts[i + 1]], (N + 1,)."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_rows(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Index of the first window of each row, followed by the number of windows, (N + 1,)."""
        return np.searchsorted(self.rows, np.arange(self.num_rows + 1))

    def first_pieces(self, row: int, words: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """Index in `encoded.ids` of the first token of each word; −1 for a word without a token.

        Args:
            words: first and last (exclusive) character of each.
        """
        if not words:
            return np.zeros(0, np.int64)
        own = self.own[self.starts[row] : self.starts[row + 1]]
        if not len(own):
            return np.full(len(words), NOWHERE, np.int64)
        begins, ends = np.array(words, np.int64).T
        token = np.searchsorted(self.ends[own], begins, side="right")
        found = own[np.minimum(token, len(own) - 1)]
        has_one = (token < len(own)) & (self.begins[found] < ends)
        return np.where(has_one, found, NOWHERE)


class WindowEncoder:
    """A tokenizer that splits long texts into windows.

    Args:
        task: whether rows are one text, or a question and a text.

    Raises:
        ModelError: the folder has no usable tokenizer.
        UsageError: max_length is too small for the overlap and the question.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        is_pair = task.kind.asks
        tokenizer = open_tokenizer(folder)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._frame = _Frame.of(tokenizer, folder, is_pair=is_pair)
        self._input_names, self._overlap = task.input_names, task.overlap
        self._pad_id = find_pad_id(folder, tokenizer)
        self._question = task.max_length // 3 if is_pair else 0
        self._max_length = task.max_length
        if self._max_length - self._frame.special - self._question <= self._overlap:
            raise UsageError(
                f"a window of max_length = {task.max_length} tokens has {self._frame.special} "
                f"special ones, up to {self._question} of a question, and {self._overlap} that it "
                "shares with the next one (window_overlap), which leaves no room for new text; "
                "raise max_length or lower window_overlap"
            )

    def encode(self, texts: Sequence[tuple[str, ...]]) -> Windows:
        """The windows of texts `(text,)` or of pairs `(question, text)`."""
        made = _Made()
        for row, (*questions, pieces) in enumerate(self._read(texts)):
            question = questions[0] if questions else None
            asked = np.array([] if question is None else question.ids, np.int32)
            is_cut = len(asked) > self._question
            head = self._frame.head(asked[: self._question])
            places = np.array(pieces.offsets, np.int32).reshape(-1, 2)
            room = self._max_length - len(head[0]) - len(self._frame.after[0])
            cuts = list(window_cuts(len(places), room, self._overlap))
            window_of, at = own_windows(cuts, len(places))
            ids, before = np.array(pieces.ids, np.int32), len(made.rows)
            for begin, end in cuts:
                made.add(row, head, ids[begin:end], places[begin:end], self._frame, is_cut)
            made.own.append(np.array(made.firsts[before:], np.int64)[window_of] + at)
        return made.together(self._input_names, self._pad_id)

    def _read(self, texts: Sequence[tuple[str, ...]]) -> Iterator[tuple[Any, ...]]:
        """Tokenize the texts of each row, without special tokens."""
        parts = zip(*texts, strict=True)
        return zip(*(encodings(self._tokenizer, part, offsets=True) for part in parts), strict=True)


def window_cuts(tokens: int, room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) token of each window of a text; one window if the text fits.

    Example:
        >>> list(window_cuts(10, 4, 1)), list(window_cuts(0, 4, 1))
        ([(0, 4), (3, 7), (6, 10)], [(0, 0)])
    """
    begin = 0
    while begin + room < tokens:
        yield begin, begin + room
        begin += room - overlap
    yield begin, tokens


def own_windows(
    cuts: Sequence[tuple[int, int]], tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each token, the window in which it is farthest from an end (the first one on ties), and
    its position in that window.

    Example:
        >>> own_windows([(0, 4), (2, 6)], 6)[0].tolist()
        [0, 0, 0, 1, 1, 1]
    """
    best = np.full(tokens, -1, np.int64)
    window_of, at = np.zeros(tokens, np.int64), np.zeros(tokens, np.int64)
    for window, (begin, end) in enumerate(cuts):
        place = np.arange(end - begin)
        depth = np.minimum(place, place[::-1])
        is_deeper = depth > best[begin:end]
        for found, values in ((best, depth), (window_of, window), (at, place)):
            found[begin:end] = np.where(is_deeper, values, found[begin:end])
    return window_of, at


Part = tuple[Ints, Ints]
"""Token ids and segment ids."""


@dataclass(frozen=True)
class _Frame:
    """The special tokens around a text, or around a question and a text."""

    before: Part
    between: Part
    after: Part
    segments: tuple[int, ...]
    """Segment ids of the texts."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, folder: Path, *, is_pair: bool) -> _Frame:
        """Find how the tokenizer frames short texts.

        Raises:
            ModelError: it produces no token for a word.
        """
        read = tokenizer.encode("a", "a") if is_pair else tokenizer.encode("a")
        ids, segments = np.array(read.ids, np.int32), np.array(read.type_ids, np.int32)
        of_text = np.array([-1 if i is None else i for i in read.sequence_ids])
        places = [np.flatnonzero(of_text == number) for number in range(1 + is_pair)]
        if not all(map(len, places)):
            raise ModelError(f"the tokenizer of {folder} gives no token for a word; get it again")
        first, last = places[0], places[-1]

        def part(begin: int, end: int) -> Part:
            return ids[begin:end], segments[begin:end]

        return cls(
            part(0, first[0]),
            part(first[-1] + 1, last[0]) if is_pair else part(0, 0),
            part(last[-1] + 1, len(ids)),
            tuple(int(segments[place[0]]) for place in places),
        )

    @property
    def special(self) -> int:
        return sum(len(ids) for ids, _ in (self.before, self.between, self.after))

    def head(self, asked: Ints) -> Part:
        """Tokens before a text, including the question."""
        question = asked, np.full(len(asked), self.segments[0], np.int32)
        ids, segments = zip(self.before, question, self.between, strict=True)
        return np.concatenate(ids), np.concatenate(segments)


class _Made:
    """Collects windows, then concatenates them."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.firsts: list[int] = []
        """Index among all tokens where the text of each window begins."""
        self.own: list[NDArray[np.int64]] = []
        self._ids: list[Ints] = []
        self._segments: list[Ints] = []
        self._places: list[Ints] = []
        self._is_cut: list[bool] = []
        self._tokens = 0

    def add(
        self, row: int, head: Part, ids: Ints, places: Ints, frame: _Frame, is_cut: bool
    ) -> None:
        whole = np.concatenate([head[0], ids, frame.after[0]])
        segment = np.full(len(ids), frame.segments[-1], np.int32)
        where = np.full((len(whole), 2), NOWHERE, np.int32)
        where[len(head[0]) : len(head[0]) + len(ids)] = places
        self.rows.append(row)
        self.firsts.append(self._tokens + len(head[0]))
        self._ids.append(whole)
        self._segments.append(np.concatenate([head[1], segment, frame.after[1]]))
        self._places.append(where)
        self._is_cut.append(is_cut)
        self._tokens += len(whole)

    def together(self, input_names: tuple[str, ...], pad_id: int) -> Windows:
        places = np.concatenate([np.zeros((0, 2), np.int32), *self._places])
        encoded = Encoded.of(self._ids, input_names, pad_id, self._is_cut, self._segments)
        own = np.concatenate([np.zeros(0, np.int64), *self.own])
        starts = np.cumsum([0, *map(len, self.own)], dtype=np.int64)
        return Windows(
            encoded, np.array(self.rows, np.int32), places[:, 0], places[:, 1], own, starts
        )
