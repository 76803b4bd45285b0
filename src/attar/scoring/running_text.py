"""−log p of every token of running text, summed per passage.

The text is one stream: document after document, each followed by the end token, as in training.
Every token except the first is predicted exactly once. A window of `context` tokens is read at a
time; the next one begins `stride` tokens later (the last one ends with the text), and in each only
tokens that have not been predicted yet count:

    stride = context       adjacent windows: cheap, with contexts of 1 … context tokens
    stride < context       at least context − stride + 1 tokens of context (except at the beginning)

Neighbouring tokens depend on each other, so single tokens must not be resampled, and blocks of
tokens contain different text for different tokenizers. The units are therefore *passages*: runs of
at most 2,000 characters of one document. They are the same for every model, so models with
different tokenizers can be compared in pairs. A token belongs to the passage in which it begins, an
end token to the last one of its document. Imports no torch.

Letters: N tokens · P passages · B windows · T tokens of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attar.data.packing import document_tokenizer
from attar.data.tokenize import encodings
from attar.errors import DataError, NonFiniteError, UsageError
from attar.scoring.config import gap

PASSAGE = 2000
"""In characters: several hundred tokens, long enough to be nearly independent, and short enough for
hundreds of passages in a small validation text."""


@dataclass(frozen=True)
class Stream:
    """Texts as one model's tokens, concatenated."""

    ids: np.ndarray
    """int64 (N,)."""
    passages: np.ndarray
    """The passage of each token, (N,), in increasing order."""
    num_bytes: np.ndarray
    """Size of each passage in UTF-8, (P,)."""

    @property
    def predicted(self) -> np.ndarray:
        """Number of predicted tokens in each passage, all except the stream's first; float64
        (P,)."""
        counts = np.bincount(self.passages[1:], minlength=len(self.num_bytes))
        return counts.astype(np.float64)


def read_stream(model_folder: Path, texts: Sequence[tuple[str, ...]], where: str) -> Stream:
    """Tokenize the texts into one stream, with an end token after every document.

    Raises:
        ModelError: the tokenizer is missing or damaged, or has no end token.
        DataError: fewer than two tokens.
    """
    tokenizer, end = document_tokenizer(model_folder)
    ids: list[np.ndarray] = []
    passages: list[np.ndarray] = []
    num_bytes: list[int] = []
    plain = [" ".join(text) for text in texts]
    for text, encoding in zip(plain, encodings(tokenizer, plain, offsets=True), strict=True):
        first, count = len(num_bytes), max(1, math.ceil(len(text) / PASSAGE))
        pieces = [text[PASSAGE * i : PASSAGE * (i + 1)] for i in range(count)]
        num_bytes += [len(piece.encode()) for piece in pieces]
        at = [min(offset // PASSAGE, count - 1) for offset, _ in encoding.offsets]
        ids.append(np.array([*encoding.ids, end], dtype=np.int64))
        # offsets may step back by a character or two if a tokenizer splits a character
        passages.append(first + np.maximum.accumulate([*at, count - 1]))
    if sum(map(len, ids)) < 2:
        raise DataError(
            f"{where} has fewer than 2 tokens, too few to predict the next one; add text"
        )
    return Stream(np.concatenate(ids), np.concatenate(passages), np.array(num_bytes))


def check_window(context: int, stride: int | None, positions: int | None, where: str) -> int:
    """The stride for a context.

    Raises:
        UsageError: the context is longer than the model's positions, or the stride would skip
            tokens.
    """
    stride = context if stride is None else stride
    if positions is not None and context > positions:
        raise UsageError(
            f"context is {context}, model {where!r} has {positions} positions; set context to "
            f"{positions} or less"
        )
    if (problem := gap(context, stride)) is not None:
        raise UsageError(problem)
    return stride


def windows(tokens: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, new): read tokens [begin, end) of the stream; the last `new` of them are
    predicted in this window.

    Example:
        >>> list(windows(8, context=4, stride=2))
        [(0, 3, 2), (0, 5, 2), (2, 7, 2), (3, 8, 1)]
    """
    for done in range(1, tokens, stride):
        end = min(done + stride, tokens)
        yield max(0, end - 1 - context), end, end - done


def score_stream(
    stream: Stream,
    nats_of: Callable[[np.ndarray], np.ndarray],
    *,
    context: int,
    stride: int,
    batch_size: int,
    after_tokens: Callable[[int], None],
    model: str,
) -> np.ndarray:
    """Nats of each passage, float64 (P,): every token of the stream except the first, once.

    Args:
        nats_of: ids (B, T) → nats (B, T − 1) of all tokens except the first.
        after_tokens: called with the number of tokens just predicted.
        model: its name, for messages.

    Raises:
        NonFiniteError: a token's nats are NaN or infinite.
    """
    nats = np.zeros(len(stream.ids))
    for batch in _batches(windows(len(stream.ids), context, stride), batch_size):
        found = nats_of(np.stack([stream.ids[begin:end] for begin, end, _ in batch]))
        for row, (_, end, new) in zip(found, batch, strict=True):
            nats[end - new : end] = row[-new:]
        after_tokens(sum(new for *_, new in batch))
    broken = np.flatnonzero(~np.isfinite(nats))
    if len(broken):
        raise NonFiniteError(
            f"model {model!r} gives {len(broken):,} of {len(nats) - 1:,} tokens a NaN or infinite "
            f"likelihood (first: token {broken[0]:,}); its weights are broken"
        )
    return np.bincount(stream.passages, weights=nats, minlength=len(stream.num_bytes))


def _batches(
    every: Iterator[tuple[int, int, int]], batch_size: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Consecutive windows of the same length in one batch, so nothing is padded."""
    batch: list[tuple[int, int, int]] = []
    for window in every:
        differs = batch and window[1] - window[0] != batch[0][1] - batch[0][0]
        if batch and (differs or len(batch) == batch_size):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
