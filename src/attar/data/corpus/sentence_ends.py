"""Where a chunk of running text may end, as tables over the vocabulary.

A chunk may end after the end-of-text token; after a token with a line break; and after a token
with one of . ! ? ; and no unbalanced bracket, if the next token begins with a space ("3.14" and
"D.A." are not sentence ends). The rule is MiniPLM's (arXiv 2410.17215, the authors' scripts),
applied to arrays of ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

MARKS = frozenset(".!?;")
BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
SPACES = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""Characters with which byte-level BPE and SentencePiece spell a space, and byte-level BPE a line
break."""
CONTINUES = "##"
"""Prefix of a WordPiece token that continues a word."""


@dataclass(frozen=True)
class SentenceEnds:
    """Three tables over the vocabulary (V,)."""

    always: NDArray[np.bool_]
    """A chunk may end after this token."""
    before_space: NDArray[np.bool_]
    """A chunk may end after this token if a token with `begins_word` follows."""
    begins_word: NDArray[np.bool_]

    def last(self, ids: NDArray[np.integer], limit: int) -> int:
        """Length of the longest prefix of `ids` with at most `limit` tokens that ends at a sentence
        end. `limit` if there is no sentence end; `len(ids)` if all tokens fit.

        Example:
            >>> ends = SentenceEnds(*np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], bool))
            >>> ends.last(np.array([3, 1, 0, 3, 3]), 4), ends.last(np.array([3, 3, 3, 3, 3]), 4)
            (2, 4)
        """
        if len(ids) <= limit:
            return len(ids)
        window, following = ids[:limit], ids[1 : limit + 1]
        may_end = self.always[window] | (self.before_space[window] & self.begins_word[following])
        places = np.flatnonzero(may_end)
        return int(places[-1]) + 1 if len(places) else limit


def sentence_ends(tokenizer: Tokenizer, end_id: int) -> SentenceEnds:
    """The tables for a tokenizer whose documents end with `end_id`."""
    vocabulary = tokenizer.get_vocab()
    size = max(len(vocabulary), max(vocabulary.values(), default=-1) + 1)
    always, before_space, begins_word = np.zeros((3, size), np.bool_)
    is_word_piece = any(token.startswith(CONTINUES) for token in vocabulary)
    for token, token_id in vocabulary.items():
        text = token.translate(SPACES)
        always[token_id] = "\n" in text
        before_space[token_id] = not MARKS.isdisjoint(text) and _is_balanced(text)
        begins_word[token_id] = not text.startswith(CONTINUES) if is_word_piece else text[:1] == " "
    always[end_id] = True
    return SentenceEnds(always, before_space, begins_word)


def _is_balanced(text: str) -> bool:
    return all(text.count(left) == text.count(right) for left, right in BRACKETS)
