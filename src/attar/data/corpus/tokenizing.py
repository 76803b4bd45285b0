"""Documents → tokens, each token with the place in the document where it ends.

The problem: a chunk's text must be kept beside its tokens, and a tokenizer that reports where each
token came from is slower than one that does not. The idea: a byte-level tokenizer spells every byte
as one letter of its tokens, so the lengths of the tokens' spellings, summed up, are the places.
They are believed for a document when they sum to its size; where they do not (another kind of
tokenizer, or one that normalizes), the tokenizer is asked for the places of that document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from attar.data.corpus.packing import TokenizedDocument
from attar.data.documents import Document

DOCUMENTS_AT_ONCE = 256
"""Handed to the tokenizer's threads together."""


class DocumentTokenizer:
    """A tokenizer that adds no special tokens but the end token behind each document."""

    def __init__(self, tokenizer: Tokenizer, end_id: int) -> None:
        self._tokenizer, self._end_id = tokenizer, end_id
        vocabulary = tokenizer.get_vocab()
        self._spelled = np.zeros(max(vocabulary.values(), default=-1) + 1, np.int64)
        for token, token_id in vocabulary.items():
            self._spelled[token_id] = len(token)

    def tokenized(self, documents: Iterable[tuple[str, Document]]) -> Iterator[TokenizedDocument]:
        """(part, document) pairs in order, tokenized."""
        remaining = iter(documents)
        while group := list(islice(remaining, DOCUMENTS_AT_ONCE)):
            texts = [document.text for _, document in group]
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            for (part, document), encoding in zip(group, encodings, strict=True):
                yield self._one(part, document, encoding)

    def _one(self, part: str, document: Document, encoding: Encoding) -> TokenizedDocument:
        text = document.text.encode()
        ids = np.array([*encoding.ids, self._end_id], np.int32)
        byte_ends = np.cumsum(self._spelled[ids])
        byte_ends[-1] = len(text)
        if len(ids) == 1 or byte_ends[-2] != len(text):
            byte_ends = self._asked(document.text, ids)
        return TokenizedDocument(part, document.source, document.row, text, ids, byte_ends)

    def _asked(self, text: str, ids: NDArray[np.int32]) -> NDArray[np.int64]:
        """A token ends where the next one begins, so that what no token covers (a space) has a
        place too."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        letters = np.array([begin for begin, _ in offsets[1:]] + [len(text)] * 2, np.int64)
        letters = np.maximum.accumulate(letters)[-len(ids) :]
        bytes_before = np.concatenate([[0], np.cumsum([len(letter.encode()) for letter in text])])
        return bytes_before[letters].astype(np.int64)
