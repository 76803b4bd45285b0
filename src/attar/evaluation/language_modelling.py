"""How well language models foresee running text, with intervals, whatever tokens they cut it into.

    nll = Σ −log p(token | its context) / tokens       nats a token
    perplexity = exp(nll)                bits_per_byte = Σ −log₂ p / bytes of the text

The text is one stream: document after document, each followed by the end token, as in training.
Every token but the very first is predicted exactly once. A window of `context` tokens is read at a
time; the next one begins `stride` tokens later (the last one ends with the text), and in each only
what was not predicted yet counts:

    stride = context       windows side by side: cheap, and contexts of 1 … context tokens
    stride < context       at least context − stride + 1 tokens of context (but at the beginning)

Neighbouring tokens share their fate, so single tokens must not be resampled, and blocks of tokens
are different texts to different tokenizers. What is resampled are *passages*: runs of at most
2,000 characters of one document. They are the same for every model, so models with different
tokenizers can be paired; a token belongs to the passage it begins in, an end token to the last one
of its document. Only bits_per_byte compares models with different tokenizers fairly.
Letters: N tokens · P passages.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.artifacts import disk_errors_explained
from attar.data.packing import document_tokenizer
from attar.data.tables import Split, TextData
from attar.data.tokenize import TEXTS_AT_ONCE
from attar.errors import DataError, NonFiniteError, UsageError
from attar.evaluation.glue import known_metrics
from attar.evaluation.inputs import room_of
from attar.numerics.statistics import Bootstrapped, bootstrap

if TYPE_CHECKING:
    from attar.scoring.forms import Form

PASSAGE = 2000
"""Characters: some hundred tokens, beyond which little is shared, and few enough for hundreds of
passages in a small validation text."""
LEAST_PASSAGES = 2


@dataclass(frozen=True)
class Stream:
    """Texts as one model's tokens, end to end."""

    ids: np.ndarray
    """int64 (N,)."""
    passages: np.ndarray
    """Which passage each token belongs to, (N,), rising."""
    num_bytes: np.ndarray
    """Of each passage in UTF-8, (P,)."""


@dataclass(frozen=True)
class Foreseen:
    """What one model made of a stream, passage by passage; (P,) each."""

    nats: np.ndarray
    tokens: np.ndarray
    """Predicted ones."""
    num_bytes: np.ndarray
    how: dict[str, Any] = field(default_factory=dict[str, Any])
    """Its window, and how fast it read."""


def foresee_all(
    forms: Mapping[str, Form],
    streams: Mapping[str, Stream],
    context: int | None,
    stride: int | None,
    batch_size: int,
    after_tokens: Callable[[int, str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Foreseen]:
    """Model → what it made of its stream.

    Args:
        context: None: each model's own `max_length`.
        stride: None: the context.
        after_tokens: called with the number of tokens just predicted and the model's name.
        clock: seconds; a test passes its own.
    """
    found: dict[str, Foreseen] = {}
    for name, form in forms.items():
        length = context or form.task.max_length
        step = check_window(length, stride, room_of(form.folder), name)
        began = clock()
        one = foresee(
            streams[name],
            form.nats,
            context=length,
            stride=step,
            batch_size=batch_size,
            after_tokens=lambda tokens, name=name: after_tokens(tokens, name),
            where=name,
        )
        rate = one.tokens.sum() / (clock() - began)
        how = {"tokens_per_s": float(rate), "context": length, "stride": step}
        found[name] = replace(one, how=how)
    return found


def read_streams(forms: Mapping[str, Form], split: Split, where: str) -> dict[str, Stream]:
    """Model → the split's texts as its tokens.

    Raises: as `read_stream`.
    """
    return {name: read_stream(form.folder, split.texts, where) for name, form in forms.items()}


def read_stream(model_folder: Path, texts: Sequence[tuple[str, ...]], where: str) -> Stream:
    """The texts as the model's tokens, every document followed by the end token.

    Raises:
        ModelError: the tokenizer is missing or damaged, or has no end token.
        DataError: fewer than two tokens.
    """
    tokenizer, end = document_tokenizer(model_folder)
    ids: list[np.ndarray] = []
    passages: list[np.ndarray] = []
    num_bytes: list[int] = []
    for begin in range(0, len(texts), TEXTS_AT_ONCE):
        plain = [" ".join(text) for text in texts[begin : begin + TEXTS_AT_ONCE]]
        encodings = tokenizer.encode_batch(plain, add_special_tokens=False)
        for text, encoding in zip(plain, encodings, strict=True):
            first, count = len(num_bytes), max(1, math.ceil(len(text) / PASSAGE))
            pieces = [text[PASSAGE * i : PASSAGE * (i + 1)] for i in range(count)]
            num_bytes += [len(piece.encode()) for piece in pieces]
            at = [min(offset // PASSAGE, count - 1) for offset, _ in encoding.offsets]
            ids.append(np.array([*encoding.ids, end], dtype=np.int64))
            # an offset may step back by a character or two where a tokenizer splits a letter
            passages.append(first + np.maximum.accumulate([*at, count - 1]))
    if sum(map(len, ids)) < 2:
        raise DataError(f"{where} has fewer than 2 tokens, and a next token needs them; add text")
    return Stream(np.concatenate(ids), np.concatenate(passages), np.array(num_bytes))


def check_window(context: int, stride: int | None, positions: int | None, where: str) -> int:
    """The stride that goes with a context.

    Raises:
        UsageError: a context the model has no room for, or a stride that would skip tokens.
    """
    stride = context if stride is None else stride
    if positions is not None and context > positions:
        raise UsageError(
            f"context is {context}, model {where!r} has {positions} positions; set context to "
            f"{positions} or less"
        )
    if stride > context:
        raise UsageError(
            f"stride is {stride}, above context = {context}: tokens in between would never be "
            "predicted; set stride to context or less"
        )
    return stride


def windows(tokens: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, new): tokens [begin, end) of the stream are needed, the last `new` of them are
    predicted here.

    Example:
        >>> list(windows(8, context=4, stride=2))
        [(0, 3, 2), (0, 5, 2), (2, 7, 2), (3, 8, 1)]
    """
    for done in range(1, tokens, stride):
        end = min(done + stride, tokens)
        yield max(0, end - 1 - context), end, end - done


def foresee(
    stream: Stream,
    nats_of: Callable[[np.ndarray], np.ndarray],
    *,
    context: int,
    stride: int,
    batch_size: int,
    after_tokens: Callable[[int], None],
    where: str,
) -> Foreseen:
    """Predict every token of a stream but the first, once.

    Args:
        nats_of: ids (B, T) → nats (B, T − 1) of all tokens but the first.
        after_tokens: called with the number of tokens just predicted.
        where: names the model in a message.
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
            f"model {where!r} gives {len(broken):,} of {len(nats) - 1:,} tokens a likelihood that "
            f"is NaN or infinite (first: token {broken[0]:,}); its weights are broken"
        )
    count = len(stream.num_bytes)
    return Foreseen(
        nats=np.bincount(stream.passages, weights=nats, minlength=count),
        tokens=np.bincount(stream.passages[1:], minlength=count).astype(np.float64),
        num_bytes=stream.num_bytes.astype(np.float64),
    )


def _batches(
    every: Iterator[tuple[int, int, int]], batch_size: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Neighbours of one length together: nothing is padded."""
    batch: list[tuple[int, int, int]] = []
    for window in every:
        differs = batch and window[1] - window[0] != batch[0][1] - batch[0][0]
        if batch and (differs or len(batch) == batch_size):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def bootstrapped_language_metrics(
    foreseen: Mapping[str, Foreseen], data: TextData, *, resamples: int, seed: int
) -> dict[str, dict[str, Bootstrapped]]:
    """Metric → model → its value on all passages and on every resample of them; models share the
    draws.

    Raises:
        DataError: a single passage, which has no spread.
    """
    passages = len(next(iter(foreseen.values())).nats)
    if passages < LEAST_PASSAGES:
        raise DataError(
            f"data {data.name!r} has {passages} passage of up to {PASSAGE:,} characters, and an "
            f"interval needs at least {LEAST_PASSAGES}; evaluate on more text"
        )
    found: dict[str, dict[str, Bootstrapped]] = {}
    for metric in known_metrics(data):
        found[metric] = {}
        for name, one in foreseen.items():
            under = one.num_bytes if metric == "bits_per_byte" else one.tokens
            found[metric] |= bootstrap(
                metric, {name: one.nats}, under, resamples=resamples, seed=seed
            )
    return found


def write_passages(file: Path, data: TextData, foreseen: Mapping[str, Foreseen]) -> None:
    """One row a passage, with the nats and the tokens of each model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    num_bytes = next(iter(foreseen.values())).num_bytes
    columns: dict[str, pa.Array] = {
        "passage": pa.array(np.arange(len(num_bytes), dtype=np.int32)),
        "bytes": pa.array(num_bytes.astype(np.int32)),
    }
    for name, one in foreseen.items():
        columns[f"{name}.nats"] = pa.array(one.nats)
        columns[f"{name}.tokens"] = pa.array(one.tokens.astype(np.int32))
    table = pa.table(columns).replace_schema_metadata({"data": data.name})
    with disk_errors_explained(file.parent):
        pq.write_table(table, file, compression="zstd")
