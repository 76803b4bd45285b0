"""New training sentences, written by a masked language model.

Each sentence gives `copies` new ones: every word is replaced with probability p by one of the `top`
words that the masked language model finds most likely in its place (or, for a word of several
tokens, by one of its nearest neighbours in the embedding table).

    for copy c of text t, word w:   u, v ~ U[0, 1) from (seed, row, which text)
        replaced if u < p;  by candidate ⌊v · top⌋ of (t, w)

A word's candidates depend only on its text, not on the copy, so one query serves all copies, and
words that no copy replaces are never queried. The texts of a pair are augmented separately.

Source: TinyBERT (Jiao et al. 2020), algorithm 1.

*Differs from the paper*: there, words to the left of a mask are those of the copy, already
replaced, which takes a forward pass for each word of each copy; and words of several tokens get
their neighbours from GloVe. Here a word is never replaced by itself, so p is the share of words
that change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attar.distillation.masked_lm import MaskedLm, Request
from attar.distillation.words import ReadText
from attar.seeds import generator

Candidates = Mapping[tuple[str, int], np.ndarray]
"""(text, number of the word) → token ids, best first."""


@dataclass(frozen=True)
class Choice:
    """Random choices for one text: bool and int64 (copies, words)."""

    is_replaced: np.ndarray
    candidate: np.ndarray


@dataclass(frozen=True)
class Made:
    """Copies of a chunk of rows, with counts."""

    rows: list[list[tuple[str, ...]]]
    """The copies of each source row."""
    words: int
    """Number of words that could have been replaced, over all copies."""
    replaced: int
    questions: int
    """Number of words for which the masked language model was queried."""
    forwards: int


def choose(
    seed: int, row: int, which: int, copies: int, words: int, probability: float, top: int
) -> Choice:
    """Choose which words of a text change in which copy, and to which candidate: a pure function.

    Args:
        which: 0 or 1, the text of a pair.
    """
    draws = generator(seed, "augment", row, which).random((copies, words, 2))
    return Choice(draws[..., 0] < probability, (draws[..., 1] * top).astype(np.int64))


class Augmenter:
    """Makes copies of rows.

    Args:
        tokens: id → the word of that token.
        after_forward: called after each forward pass; may raise to stop.
    """

    def __init__(
        self,
        read: Callable[[Sequence[str]], list[ReadText]],
        lm: MaskedLm,
        tokens: Sequence[str],
        *,
        seed: int,
        copies: int,
        probability: float,
        top: int,
        after_forward: Callable[[], None] = lambda: None,
    ) -> None:
        self._read, self._lm, self._tokens = read, lm, tokens
        self._seed, self._copies, self._top = seed, copies, top
        self._probability, self._after_forward = probability, after_forward

    def augment(self, rows: Sequence[tuple[str, ...]], first_row: int) -> Made:
        """Copies of the rows. The first one has number `first_row`."""
        distinct = list(dict.fromkeys(text for texts in rows for text in texts))
        read = dict(zip(distinct, self._read(distinct), strict=True))
        choices = [
            [
                choose(
                    *(self._seed, first_row + i, which, self._copies, len(read[text].words)),
                    *(self._probability, self._top),
                )
                for which, text in enumerate(texts)
            ]
            for i, texts in enumerate(rows)
        ]
        before = self._lm.num_forwards
        candidates, questions = self._candidates(rows, choices, read)
        made: list[list[tuple[str, ...]]] = []
        for texts, chosen in zip(rows, choices, strict=True):
            sides = [
                self._copies_of(read[text], choice, candidates)
                for text, choice in zip(texts, chosen, strict=True)
            ]
            made.append(list(zip(*sides, strict=True)))
        flat = [choice for chosen in choices for choice in chosen]
        return Made(
            rows=made,
            words=sum(choice.is_replaced.size for choice in flat),
            replaced=sum(int(choice.is_replaced.sum()) for choice in flat),
            questions=questions,
            forwards=self._lm.num_forwards - before,
        )

    def _candidates(
        self,
        rows: Sequence[tuple[str, ...]],
        choices: Sequence[Sequence[Choice]],
        read: Mapping[str, ReadText],
    ) -> tuple[Candidates, int]:
        """Candidates of every word that some copy replaces, and the number of words for which the
        masked language model was queried."""
        wanted = {
            (text, int(number))
            for texts, chosen in zip(rows, choices, strict=True)
            for text, choice in zip(texts, chosen, strict=True)
            for number in np.flatnonzero(choice.is_replaced.any(axis=0))
        }
        requests = [Request(read[text], number) for text, number in sorted(wanted)]
        whole = [request for request in requests if len(request.word.pieces) == 1]
        pieced = [request for request in requests if len(request.word.pieces) > 1]
        found: dict[tuple[str, int], np.ndarray] = {}
        for batch in self._lm.batches(whole):
            asked = [whole[i] for i in batch]
            for request, ids in zip(asked, self._lm.answer(asked), strict=True):
                found[request.text.text, request.number] = ids
            self._after_forward()
        if pieced:
            for request, ids in zip(pieced, self._lm.neighbours(pieced), strict=True):
                found[request.text.text, request.number] = ids
        return found, len(whole)

    def _copies_of(self, text: ReadText, choice: Choice, candidates: Candidates) -> list[str]:
        made: list[str] = []
        for is_replaced, candidate in zip(choice.is_replaced, choice.candidate, strict=True):
            words = {
                number: self._tokens[int(candidates[text.text, number][candidate[number]])]
                for number in np.flatnonzero(is_replaced).tolist()
            }
            made.append(text.with_words(words))
        return made
