"""`run = "score"`: compute a score for each chunk of a corpus with a model.

A language model gives log p. Of a chunk of n tokens, n − 1 are predicted: its score is the sum of
their log-probabilities in nats, stored with their number. Teacher and reference score a corpus in
two separate steps, so that another reference costs one pass and not two (MiniPLM, arXiv
2410.17215). A proxy gives its prediction of the difference between the two.

The batches of a shard are a pure function of its lengths. A shard gets its final name when it is
complete, and does not change afterwards. A stopped run continues with the next batch, a killed one
with a batch at most a minute earlier. `work` is the only loop over shards, and each shard is
processed independently.

A random sample of a part consists of the chunks with the largest keys, each a pure function of
(seed, shard, place). It is uniform and without replacement, two steps with equal settings score the
same chunks, and a larger sample contains a smaller one.

A chunk that a model cannot score is set aside: its score is NaN, and a file has the reason.

Memory: that of `attar.selection.scorers`, and the row numbers and scores of one shard.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from attar.artifacts import put_beside, read_result, write_bytes
from attar.data.batches import token_batches
from attar.data.corpus.published import corpus_of
from attar.data.corpus.token_store import PARTS, Corpus, Shard
from attar.data.tables import SetAside
from attar.errors import ModelError, NonFiniteError, StoppedError
from attar.models.cost import forward_flops
from attar.models.sources.references import find_model_folder
from attar.numerics.selection import cut_of, ordered
from attar.seeds import generator
from attar.selection.config import ScoreMetrics, ScoreStep
from attar.selection.fates import write_set_aside
from attar.selection.flops import OfflineFlops
from attar.selection.proxy_model import is_proxy
from attar.selection.scorers import Scorer, open_scorer
from attar.selection.scores import ShardScores, read_scores, score_file
from attar.step import StepContext

SET_ASIDE_FILE = "set_aside.jsonl.gz"
NOT_FINITE = "the log-probability is NaN or infinite"
KEEP_EVERY_S = 60.0
ROWS_NAMED = 5
"""Number of rows named in a message for each reason."""


def score(config: ScoreStep, context: StepContext) -> ScoreMetrics:
    """Score the chunks of a part of the corpus, or a sample of them.

    Raises:
        StoppedError: a stop was requested; scores so far are kept.
    """
    corpus = corpus_of(context, config.data)
    scorer = open_scorer(config, context, corpus)
    rows_of = rows_to_score(corpus, config.part, config.chunks, context.seed)
    folder = context.scratch / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(len(corpus.shards))
    chunks = sum(len(rows_of(number)) for number in shards)
    begins = np.cumsum([0, *(shard["chunks"] for shard in corpus.about["shards"])])

    def set_aside(number: int, shard: Shard, scores: ShardScores) -> list[SetAside]:
        return _set_aside(scores, shard, int(begins[number]), scorer.vocabulary)

    with context.progress.task(f"  {context.name}", chunks) as task:

        def do(number: int) -> Path:
            file, rows = score_file(folder, number), rows_of(number)
            if file.exists():
                task.skip(len(rows))
                return file
            shard, part = corpus.shards[number], file.with_suffix(".part")
            begun = Begun.read(part, len(rows))
            task.skip(begun.chunks)
            for size in fill_(begun, scorer, shard, rows, config.batch_tokens):
                task.advance(size)
                if np.isnan(begun.values).sum() > config.max_set_aside * chunks:
                    found = begun.scores(scorer, shard, rows)
                    _require_few(set_aside(number, shard, found), chunks, config, context.name)
                begun.keep(part, context)
            begun.scores(scorer, shard, rows).write(file)
            part.unlink(missing_ok=True)
            return file

        files = work(shards, do)
    counts = {"chunks": chunks, "tokens": 0, "flops": 0}
    total, faults = 0.0, list[SetAside]()
    for number, file in enumerate(files):
        scores = read_scores(file)
        faults += set_aside(number, corpus.shards[number], scores)
        values, is_scored = scores.values, np.isfinite(scores.values)
        total += float(values.sum(dtype=np.float64, where=is_scored))
        counts["tokens"] += int(scores.tokens.sum(dtype=np.int64, where=is_scored))
        counts["flops"] += forward_flops(scorer.model, scores.tokens)
    _require_few(faults, chunks, config, context.name)
    for file in files:
        put_beside(file, context.folder)
    write_set_aside(context.folder / SET_ASIDE_FILE, faults)
    metrics = {
        "data": config.data,
        "part": config.part,
        **counts,
        **scorer.summary(total, chunks - len(faults), counts["tokens"]),
        **_offline(config, context, counts),
        "set_aside": dict(Counter(fault.reason for fault in faults)),
    }
    return cast(ScoreMetrics, metrics)


def work(shards: Iterable[int], do: Callable[[int], Path]) -> list[Path]:
    """Call `do` for every shard and return the files it made. `do` is idempotent and needs no other
    shard, so another engine could call it in other processes and in any order."""
    return [do(shard) for shard in shards]


@dataclass
class Begun:
    """Partial scores of a shard, saved about once a minute, so that a shard that takes hours need
    not be restarted."""

    values: NDArray[np.float32]
    """Infinite if not scored yet; NaN if the model gives no valid score, (N,)."""
    batches: int = 0
    """Number of batches done."""
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, file: Path, chunks: int) -> Begun:
        """Load what an interrupted run saved; an empty state if there is nothing."""
        with suppress(OSError, SafetensorError, KeyError):
            found = load_file(file)
            if len(found["values"]) == chunks:
                return cls(found["values"].copy(), int(found["batches"][0]))
        return cls(np.full(chunks, np.inf, np.float32))

    @property
    def chunks(self) -> int:
        """Number of chunks done."""
        return int((~np.isinf(self.values)).sum())

    def keep(self, file: Path, context: StepContext) -> None:
        """Save the state if the last save was long ago.

        Raises:
            StoppedError: a stop was requested.
        """
        is_stopping = context.should_stop()
        if is_stopping or time.monotonic() - self.saved_at > KEEP_EVERY_S:
            batches = np.array([self.batches], "<i8")
            write_bytes(file, save({"values": self.values, "batches": batches}))
            self.saved_at = time.monotonic()
        if is_stopping:
            raise StoppedError(
                f"{context.name} stopped after {self.batches:,} batches of a shard; the scores so "
                "far are saved; continue with `attar resume` or the same command"
            )

    def scores(self, scorer: Scorer, shard: Shard, rows: NDArray[np.int64]) -> ShardScores:
        return ShardScores(
            row=rows.astype("<u8"),
            tokens=np.maximum(shard.lengths[rows] - 1, 0).astype("<u4"),
            digest=np.asarray(shard.digest)[rows],
            **{scorer.quantity: self.values},
        )


def fill_(
    begun: Begun, scorer: Scorer, shard: Shard, rows: NDArray[np.int64], batch_tokens: int
) -> Iterator[int]:
    """Score the remaining batches; yields the number of chunks in each.

    Args:
        rows: of the shard.
        batch_tokens: tokens in one forward pass, including padding.
    """
    batches = token_batches(shard.lengths[rows], batch_tokens)
    for batch in islice(batches, begun.batches, None):
        chunks = [shard.chunk(int(row)) for row in rows[batch]]
        is_readable = [int(chunk.max()) < scorer.vocabulary for chunk in chunks]
        read = [chunk for chunk, fits in zip(chunks, is_readable, strict=True) if fits]
        values = np.full(len(batch), np.nan, np.float32)
        if read:
            values[is_readable] = scorer(read)
        begun.values[batch] = np.where(np.isfinite(values), values, np.nan)
        begun.batches += 1
        yield len(batch)


def _offline(
    config: ScoreStep, context: StepContext, counts: dict[str, int]
) -> dict[str, dict[str, float]]:
    """Total FLOPs of scoring with a proxy of this recipe, compared with the teacher alone."""
    folder = context.inputs.get(config.model)
    if folder is None or not is_proxy(find_model_folder(folder)):
        return {}
    made = read_result(folder).metrics
    sampled = made["sample_tokens"] / max(counts["tokens"], 1)
    return {
        "offline": OfflineFlops(
            **made["flops"], predicting=counts["flops"], sampled=sampled
        ).as_json()
    }


def _set_aside(scores: ShardScores, shard: Shard, begin: int, vocabulary: int) -> list[SetAside]:
    """The chunks without a score, with reasons; rows are numbered over all shards, from `begin`
    on."""
    rows = scores.row[np.isnan(scores.values)]
    return [
        SetAside("train", begin + int(row), _reason(shard.chunk(int(row)), vocabulary))
        for row in rows
    ]


def _reason(chunk: NDArray[np.int64], vocabulary: int) -> str:
    if int(chunk.max()) >= vocabulary:
        return f"a token id is not below {vocabulary:,}, the number of the model's embeddings"
    return NOT_FINITE


def _require_few(faults: Sequence[SetAside], chunks: int, config: ScoreStep, step: str) -> None:
    """Raise NonFiniteError or ModelError if too many chunks have no score."""
    if len(faults) <= config.max_set_aside * chunks:
        return
    counts = Counter(fault.reason for fault in faults)
    reasons = "; ".join(
        f"{count:,} × {reason} (chunk "
        + ", ".join(str(f.row) for f in [f for f in faults if f.reason == reason][:ROWS_NAMED])
        + (", …)" if count > ROWS_NAMED else ")")
        for reason, count in counts.most_common(ROWS_NAMED)
    )
    error = NonFiniteError if NOT_FINITE in counts else ModelError
    raise error(
        f"{step}: {len(faults):,} of {chunks:,} chunks have no score, max_set_aside allows "
        f"{config.max_set_aside:.1%}: {reasons}; the weights of the model may have diverged; check "
        "it, or raise max_set_aside"
    )


def rows_to_score(
    corpus: Corpus, part: str, chunks: int | None, seed: int
) -> Callable[[int], NDArray[np.int64]]:
    """Number of a shard → its rows to score, in increasing order.

    Args:
        chunks: size of the sample; None, or at least the number of chunks: all.
    """

    def of_part(shard: int) -> NDArray[np.int64]:
        return np.flatnonzero(np.asarray(corpus.shards[shard].part) == PARTS.index(part))

    def keys(shard: int) -> NDArray[np.float32]:
        return generator(seed, "sample", shard).random(len(of_part(shard)), np.float32)

    shards = range(len(corpus.shards))
    if chunks is None or chunks >= sum(len(of_part(shard)) for shard in shards):
        return of_part
    cut = cut_of(lambda: map(keys, shards), chunks)
    ties = np.cumsum([0, *(int((ordered(keys(shard)) == cut.key).sum()) for shard in shards)])
    return lambda shard: of_part(shard)[cut.keeps(keys(shard), int(ties[shard]))]
