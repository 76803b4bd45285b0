"""Scores of a corpus's chunks: one file per shard, and functions to read them.

    00000.scores.safetensors    row, tokens, digest, and log_p or predicted, of shard 0

A language model gives the sum of a chunk's log-probabilities, a proxy a predicted score. A chunk
that could not be scored has NaN, so the files of two models always have the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from attar.artifacts import write_bytes
from attar.data.corpus.token_store import PARTS, Corpus
from attar.errors import ArtifactError, UsageError
from attar.numerics.selection import are_rows
from attar.untrusted import checked

PREDICTED = "predicted"
TYPES = {
    "row": "uint64",
    "tokens": "uint32",
    "digest": "uint64",
    "log_p": "float32",
    PREDICTED: "float32",
}


@dataclass(frozen=True)
class ShardScores:
    """Scores of some chunks of a shard, in order; NaN: could not be scored."""

    row: NDArray[np.uint64]
    """Row in the shard, (N,)."""
    tokens: NDArray[np.uint32]
    """Number of predicted tokens: all except the first, (N,)."""
    digest: NDArray[np.uint64]
    """Digests of the chunks, to check that scores belong to this corpus, (N,)."""
    log_p: NDArray[np.float32] | None = None
    """For a language model: sum of log-probabilities in nats, (N,)."""
    predicted: NDArray[np.float32] | None = None
    """For a proxy: the predicted score in nats per token, (N,)."""

    @property
    def values(self) -> NDArray[np.float32]:
        found = self.predicted if self.log_p is None else self.log_p
        assert found is not None
        return found

    @property
    def per_token(self) -> NDArray[np.float32]:
        """Nats per token, (N,)."""
        if self.log_p is None:
            return self.values
        return (self.log_p / np.maximum(self.tokens, 1)).astype(np.float32)

    def write(self, file: Path) -> None:
        """Write the scores.

        Raises:
            ResourceError: the disk is full.
        """
        write_bytes(file, save({name: x for name, x in vars(self).items() if x is not None}))


def score_file(folder: Path, shard: int) -> Path:
    """The file with the scores of a shard."""
    return folder / f"{shard:05}.scores.safetensors"


def read_scores(file: Path) -> ShardScores:
    """Read the scores of a shard.

    Raises:
        ArtifactError: the file is missing, damaged, or not a file of scores.
    """
    try:
        arrays = load_file(checked(file))
        scores = ShardScores(**arrays)
        if any(array.shape != (len(scores.row),) for array in arrays.values()):
            raise ValueError("its arrays have different lengths")
        if any(array.dtype.name != TYPES[name] for name, array in arrays.items()):
            raise ValueError("its arrays are of other types")
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{file} cannot be read ({error}); remove the "
            f"folder of step {file.parent.name!r} and run it again"
        ) from error
    if (scores.log_p is None) == (scores.predicted is None):
        raise ArtifactError(
            f"{file} must hold either log_p or predicted; remove the "
            f"folder of step {file.parent.name!r} and run it again"
        )
    return scores


@dataclass(frozen=True)
class Details:
    """Further data of scored chunks, read from disk on demand; arrays (N,)."""

    row: NDArray[np.int64]
    """Row in the corpus, over all shards."""
    by: Mapping[str, NDArray[np.float32]]
    """"teacher" and "reference" → mean log-probability per token in nats; or "predicted" → the
    proxy's score. NaN: could not be scored."""


@dataclass(frozen=True)
class Scored:
    """All scored chunks; arrays (N,) over all shards, in corpus order.

    Memory: 10 bytes per chunk; everything else is read shard by shard.
    """

    score: NDArray[np.float32]
    """r(x), or a proxy's prediction of it. NaN: could not be scored."""
    source: NDArray[np.uint16]
    tokens: NDArray[np.uint32]
    ends: NDArray[np.int64]
    """Number of scored chunks up to the end of each shard, (S,)."""
    read: Callable[[int], Details]
    """Number of a shard → further data of its scored chunks."""

    def __len__(self) -> int:
        return len(self.score)

    def parts(self) -> Iterator[tuple[slice, Details]]:
        """The chunks of each shard, with their further data."""
        begins = [0, *self.ends[:-1].tolist()]
        for number, (begin, end) in enumerate(zip(begins, self.ends.tolist(), strict=True)):
            if begin < end:
                yield slice(begin, end), self.read(number)

    def details(self, indices: NDArray[np.int64]) -> Details:
        """Further data of some chunks, in their order; reads only their shards."""
        numbers = np.searchsorted(self.ends, indices, side="right")
        row, by = np.zeros(len(indices), np.int64), dict[str, NDArray[np.float32]]()
        for number in np.unique(numbers).tolist():
            wanted, found = np.flatnonzero(numbers == number), self.read(number)
            inside = indices[wanted] - self.ends[number] + len(found.row)
            row[wanted] = found.row[inside]
            for name, values in found.by.items():
                by.setdefault(name, np.zeros(len(indices), np.float32))[wanted] = values[inside]
        return Details(row, by)

    def nll(self) -> dict[str, float]:
        """Model → mean nats per predicted token, over the chunks that have a score."""
        sums, tokens = dict[str, float](), 0
        for span, details in self.parts():
            is_scored = np.isfinite(self.score[span])
            lengths = self.tokens[span][is_scored]
            tokens += int(lengths.sum())
            for name, values in details.by.items():
                total = float(np.dot(values[is_scored].astype(np.float64), lengths))
                sums[name] = sums.get(name, 0.0) - total
        return {name: total / max(tokens, 1) for name, total in sums.items()}

    def rows(self) -> NDArray[np.int64]:
        """Rows of all chunks in the corpus; takes 8 more bytes per chunk."""
        return np.concatenate([details.row for _, details in self.parts()])


def read_scored(
    corpus: Corpus, folders: Mapping[str, Path], step: str, *, may_be_sample: bool = False
) -> Scored:
    """The scores of a corpus, after checking that they belong to its chunks.

    Args:
        folders: "teacher" and "reference", or "predicted" → folder of a score step.
        may_be_sample: False: every chunk of the part must have been scored.

    Raises:
        ArtifactError: scores are missing, damaged, of another corpus, or of another kind.
        UsageError: only a sample was scored; or teacher and reference are the same model.
    """
    score = np.empty(len(corpus), np.float32)  # unused pages of an empty array take no memory
    source, tokens = np.empty(len(corpus), np.uint16), np.empty(len(corpus), np.uint32)
    chunks_by_part = np.zeros(len(PARTS), np.int64)
    scored_by_part = np.zeros(len(PARTS), np.int64)
    ends: list[int] = []
    count = 0
    for number, shard in enumerate(corpus.shards):
        found = _of_shard(folders, number)
        first = next(iter(found.values()))
        for name, scores in found.items():
            _require_kind(scores, name, folders[name], step)
            _require_same(scores, first, shard.digest, step)
        rows = first.row.astype(np.int64)
        chunks_by_part += np.bincount(shard.part, minlength=len(PARTS))
        scored_by_part += np.bincount(shard.part[rows], minlength=len(PARTS))
        span = slice(count, count + len(rows))
        score[span] = score_of({name: scores.per_token for name, scores in found.items()})
        source[span], tokens[span] = shard.source[rows], first.tokens
        count += len(rows)
        ends.append(count)
    chunks = int(chunks_by_part[scored_by_part > 0].sum())
    if count < chunks and not may_be_sample:
        raise UsageError(
            f"{step}: only a sample is scored, {count:,} of {chunks:,} chunks, but a selection "
            "needs all of them; remove chunks from the score steps, or train a proxy on the "
            'sample (run = "proxy") and select by its predictions'
        )
    if len(folders) > 1 and count and not score[:count].any():
        raise UsageError(
            f"{step}: the scores of teacher and reference are equal for every chunk, as those of "
            "one model are; use the scores of a smaller model as reference"
        )
    begins = np.cumsum([0, *(shard["chunks"] for shard in corpus.about["shards"])])

    def read(number: int) -> Details:
        found = _of_shard(folders, number)
        row = begins[number] + next(iter(found.values())).row.astype(np.int64)
        return Details(row, {name: scores.per_token for name, scores in found.items()})

    return Scored(score[:count], source[:count], tokens[:count], np.array(ends, np.int64), read)


def _of_shard(folders: Mapping[str, Path], number: int) -> dict[str, ShardScores]:
    return {name: read_scores(score_file(folder, number)) for name, folder in folders.items()}


def score_of(by: Mapping[str, Any]) -> Any:
    """The score that a selection uses, from the numbers that score steps give for a chunk."""
    return by[PREDICTED] if PREDICTED in by else by["teacher"] - by["reference"]


def _require_kind(scores: ShardScores, name: str, folder: Path, step: str) -> None:
    is_predicted = scores.predicted is not None
    if is_predicted != (name == PREDICTED):
        found = ("log-probabilities", "scores predicted by a proxy")
        raise ArtifactError(
            f"{step}: {folder} holds {found[is_predicted]}, and {found[not is_predicted]} are "
            "needed here; name another score step"
        )


def _require_same(
    scores: ShardScores, others: ShardScores, digests: NDArray[np.uint64], step: str
) -> None:
    rows = scores.row.astype(np.int64)
    is_same = (
        np.array_equal(scores.row, others.row)
        and are_rows(scores.row, len(digests))
        and np.array_equal(np.asarray(digests)[rows], scores.digest)
    )
    if not is_same:
        raise ArtifactError(
            f"{step}: the scores are not of this corpus's chunks, or not of the same ones; teacher "
            "and reference must have scored the same part of the same tokenize step, with the same "
            "chunks and seed"
        )
