"""The rows of a cache, and where the outputs of each row are stored.

The problem: a cache is valid only for its own rows, and a student may read others: another subset,
truncation, tokenizer or order. The idea: every row has a fingerprint, which is a chunk's digest or
a hash of the teacher's inputs (token ids and segment ids, without padding). Outputs are looked up
by fingerprint, never by row number.

Outputs are ragged: a row has one hidden state per token, and one prediction per label. They are
concatenated in the order of computation, which is by length. The rows of a corpus are computed
shard by shard, and each shard has separate files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from attar.artifacts import write_bytes
from attar.data.batches import shortest_first
from attar.data.corpus.token_store import memory_map
from attar.losses.targets import Targets
from attar.training.objectives.examples import Examples
from attar.training.objectives.shards import Shards

IDS_AND_MASKS = (
    ("input_ids", "attention_mask"),
    ("token_type_ids", "attention_mask"),
    ("decoder_input_ids", "decoder_attention_mask"),
)
"""Inputs of a model, each with the mask of its non-padding positions."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ragged:
    """Location of each row in a matrix: row i has `counts[i]` entries from `starts[i]`."""

    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def in_order(cls, counts: np.ndarray, order: np.ndarray) -> Ragged:
        """Rows with these counts, concatenated in the given order."""
        starts = np.zeros(len(counts), np.int64)
        starts[order] = np.cumsum(counts[order]) - counts[order]
        return cls(starts, counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True)
class AskedRows:
    """The rows of a split, or of one shard of a corpus, as the teacher processes them."""

    fingerprints: np.ndarray
    """uint64 (N,)."""
    tokens: Mapping[str, Ragged]
    """Stack → location of each row's hidden states."""
    predictions: Ragged
    """Location of each row's logits."""
    positions: np.ndarray
    """For each stored prediction, the index of its token in the row; empty if they are the first
    tokens of every row, as in running text."""
    per_token: bool
    """Whether there is a prediction per labelled token rather than per row, even if every row has
    just one."""

    def __len__(self) -> int:
        return len(self.fingerprints)

    def write(self, folder: Path, part: int) -> None:
        """Write `rows-<part>.safetensors`."""
        arrays = {"fingerprints": self.fingerprints, "positions": self.positions}
        parts = {"predictions": self.predictions} | {
            f"tokens.{s}": r for s, r in self.tokens.items()
        }
        for name, ragged in parts.items():
            arrays |= {f"{name}.starts": ragged.starts, f"{name}.counts": ragged.counts}
        write_bytes(rows_file(folder, part), save(arrays))

    @classmethod
    def read(cls, folder: Path, part: int, stacks: Sequence[str], *, per_token: bool) -> AskedRows:
        """Open the file as memory maps.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        arrays = memory_map(rows_file(folder, part))

        def ragged(name: str) -> Ragged:
            return Ragged(arrays[f"{name}.starts"], arrays[f"{name}.counts"])

        return cls(
            arrays["fingerprints"],
            {stack: ragged(f"tokens.{stack}") for stack in stacks},
            ragged("predictions"),
            arrays["positions"],
            per_token,
        )

    def tokens_predicted(self, row: int) -> tuple[np.ndarray, int]:
        """The tokens of a row that have a prediction, and the index of the first stored
        prediction."""
        start, count = int(self.predictions.starts[row]), int(self.predictions.counts[row])
        if len(self.positions) == 0:
            return np.arange(count), start
        return self.positions[start : start + count].astype(np.int64), start


def rows_file(folder: Path, part: int) -> Path:
    return folder / f"rows-{part:05}.safetensors"


def parts_of(examples: Examples) -> list[Examples]:
    """The rows that are processed and stored together: one part per shard of a corpus, or all
    rows."""
    return list(examples.by_shard()) if isinstance(examples, Shards) else [examples]


def batches_in_order(examples: Examples, batch_size: int) -> list[np.ndarray]:
    """The rows in the order in which the teacher processes them: by length, to minimize padding."""
    return shortest_first(examples.lengths, batch_size)


def survey(examples: Examples, batch_size: int, names: Sequence[str]) -> AskedRows:
    """Count tokens and predictions of every row, without a model. For chunks, their shards have the
    counts.

    Args:
        names: inputs of the teacher.
    """
    if isinstance(examples, Shards):
        return _of_chunks(examples, batch_size)
    count, batches = len(examples), batches_in_order(examples, batch_size)
    fingerprints = np.zeros(count, np.uint64)
    predicted = np.zeros(count, np.int64)
    tokens: dict[str, np.ndarray] = {}
    positions: list[np.ndarray] = []
    per_token = False
    for rows in batches:
        inputs, targets = examples.batch(rows, CPU)
        fingerprints[rows] = _fingerprints(inputs, names)
        for stack, mask in targets.masks.items():
            tokens.setdefault(stack, np.zeros(count, np.int64))[rows] = mask.sum(1).numpy()
        per_token = targets.labels.ndim == 2
        counts, places = predictions_of(targets)
        predicted[rows] = counts.numpy()
        positions.append(places.to(torch.int32).numpy())
    order, places = np.concatenate(batches), np.concatenate(positions)
    first = [np.arange(count, dtype=np.int32) for count in predicted[order]]
    if per_token and np.array_equal(places, np.concatenate(first)):
        places = places[:0]
    return AskedRows(
        fingerprints,
        {stack: Ragged.in_order(counts, order) for stack, counts in tokens.items()},
        Ragged.in_order(predicted, order),
        places,
        per_token,
    )


def fingerprints_of(examples: Examples, batch_size: int, names: Sequence[str]) -> np.ndarray:
    """The fingerprint of every row, uint64 (N,)."""
    if not isinstance(examples, Shards):
        return survey(examples, batch_size, names).fingerprints
    parts = [shard.digest[rows] for shard, rows in examples.view.shards()]
    return np.concatenate(parts)


def _of_chunks(chunks: Shards, batch_size: int) -> AskedRows:
    places = np.arange(len(chunks))
    order = np.concatenate(batches_in_order(chunks, batch_size))
    predicted = chunks.view.lengths(places) - 1
    return AskedRows(
        chunks.view.digests(places),
        {"decoder": Ragged.in_order(chunks.lengths, order)},
        Ragged.in_order(predicted, order),
        np.zeros(0, np.int32),
        per_token=True,
    )


def predictions_of(targets: Targets) -> tuple[Tensor, Tensor]:
    """Number of predictions per row, (B,), and the token index of each, row by row."""
    counted = targets.predicted
    if counted.ndim == 1:
        return torch.ones(len(counted), dtype=torch.int64), torch.zeros(len(counted))
    return counted.sum(1), torch.nonzero(counted)[:, 1]


def _fingerprints(inputs: Mapping[str, Tensor], names: Sequence[str]) -> list[int]:
    """A 64-bit hash of each row's tokens, without padding."""
    digests = [hashlib.blake2b(digest_size=8) for _ in inputs["input_ids"]]
    for name, mask_name in IDS_AND_MASKS:
        if name not in inputs or (name not in names and not name.startswith("decoder_")):
            continue
        values = inputs[name].to(torch.int32).numpy()
        lengths = inputs[mask_name].sum(1).tolist()
        for digest, row, length in zip(digests, values, lengths, strict=True):
            digest.update(f"{name} {length} ".encode())
            digest.update(row[:length].tobytes())
    return [int.from_bytes(digest.digest(), "little") for digest in digests]
