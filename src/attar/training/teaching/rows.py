"""Which rows a teacher is asked about, and where each row's answer lies in a cache.

The problem: a cache is only right for the rows it was made of, and a student may read other ones:
another subset, another cut, another tokenizer. The idea: every row has a fingerprint of what the
teacher is fed (token ids and segments, without padding), so that two sets of rows are equal exactly
if their fingerprints are, and a difference can be counted and named.

Answers are ragged: a row has as many hidden states as tokens, and as many predictions as there are
labels. They lie end to end in the order the rows were asked, which is that of their length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from attar.artifacts import disk_errors_explained
from attar.data.batches import shortest_first
from attar.losses.targets import Targets
from attar.training.objectives.examples import Examples

IDS_AND_MASKS = (
    ("input_ids", "attention_mask"),
    ("token_type_ids", "attention_mask"),
    ("decoder_input_ids", "decoder_attention_mask"),
)
"""What a model is fed, each with the mask that says which of it is real."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ragged:
    """Where row i's part lies in a matrix: from `starts[i]`, `counts[i]` long."""

    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def in_order(cls, counts: np.ndarray, order: np.ndarray) -> Ragged:
        """Rows of these counts, laid end to end in the order given."""
        starts = np.zeros(len(counts), np.int64)
        starts[order] = np.cumsum(counts[order]) - counts[order]
        return cls(starts, counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True)
class AskedRows:
    """All rows of a split as a teacher meets them."""

    fingerprints: np.ndarray
    """uint64 (N,); of what the teacher is fed."""
    tokens: Mapping[str, Ragged]
    """Stack → where each row's hidden states lie."""
    predictions: Ragged
    """Where each row's logits lie."""
    positions: np.ndarray
    """Of each stored prediction, its token in the row; 0 where a row has one prediction."""
    per_token: bool
    """A prediction is a labelled token, and not a row; even where every row has just one."""

    def __len__(self) -> int:
        return len(self.fingerprints)

    def write(self, folder: Path) -> None:
        """`rows.safetensors`."""
        arrays = {"fingerprints": self.fingerprints, "positions": self.positions}
        parts = {"predictions": self.predictions} | {f"tokens.{s}": r for s, r in self._stacks()}
        for name, ragged in parts.items():
            arrays |= {f"{name}.starts": ragged.starts, f"{name}.counts": ragged.counts}
        with disk_errors_explained(folder):
            save_file(arrays, folder / "rows.safetensors")

    @classmethod
    def read(cls, folder: Path, stacks: Sequence[str], *, per_token: bool) -> AskedRows:
        arrays = load_file(folder / "rows.safetensors")

        def ragged(name: str) -> Ragged:
            return Ragged(arrays[f"{name}.starts"], arrays[f"{name}.counts"])

        return cls(
            arrays["fingerprints"],
            {stack: ragged(f"tokens.{stack}") for stack in stacks},
            ragged("predictions"),
            arrays["positions"],
            per_token,
        )

    def _stacks(self) -> list[tuple[str, Ragged]]:
        return list(self.tokens.items())


def batches_in_order(examples: Examples, batch_size: int) -> list[np.ndarray]:
    """The rows in the order a teacher is asked about them: by length, so that little is padding."""
    return shortest_first(examples.lengths, batch_size)


def survey(examples: Examples, batch_size: int, names: Sequence[str]) -> AskedRows:
    """Look at every row once, without any model.

    Args:
        names: the inputs the teacher is fed.
    """
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
    order = np.concatenate(batches)
    return AskedRows(
        fingerprints,
        {stack: Ragged.in_order(counts, order) for stack, counts in tokens.items()},
        Ragged.in_order(predicted, order),
        np.concatenate(positions),
        per_token,
    )


def predictions_of(targets: Targets) -> tuple[Tensor, Tensor]:
    """How many predictions of each row count, (B,), and at which token each stands, row by row."""
    counted = targets.predicted
    if counted.ndim == 1:
        return torch.ones(len(counted), dtype=torch.int64), torch.zeros(len(counted))
    return counted.sum(1), torch.nonzero(counted)[:, 1]


def _fingerprints(inputs: Mapping[str, Tensor], names: Sequence[str]) -> list[int]:
    """64 bits of each row's real tokens."""
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
