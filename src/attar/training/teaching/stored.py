"""Read the outputs of a batch from the files of a cache's parts, and put them into the batch's
order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attar.errors import ArtifactError
from attar.numerics.logits import Index, LazyLogits
from attar.numerics.sparse_distributions import (
    SparseDistributions,
    SparseLogits,
    distributions_of,
)
from attar.training.teaching.header import CacheHeader
from attar.training.teaching.rows import AskedRows, Ragged
from attar.training.teaching.tensor_file import read_tensor


@dataclass(frozen=True)
class OpenPart:
    """The files of a part, as memory maps."""

    rows: AskedRows
    files: Mapping[tuple[str, int] | None, Tensor]

    @classmethod
    def of(cls, folder: Path, header: CacheHeader, part: int) -> OpenPart:
        """Open the files of a part.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        rows = AskedRows.read(folder, part, tuple(header.stacks), per_token=header.per_token)
        files = {key: read_tensor(s.file(folder)) for key, s in header.specs(part).items()}
        return cls(rows, files)


@dataclass(frozen=True)
class Group:
    """The rows of a batch that are in one part."""

    part: OpenPart
    members: np.ndarray
    """Their indices in the batch."""
    rows: np.ndarray
    """Their numbers in the part."""

    def tokens(self, stack: str) -> Ragged:
        return self.part.rows.tokens[stack]

    @property
    def answers_of_rows(self) -> Tensor:
        """The stored outputs, one per row."""
        starts = torch.from_numpy(self.part.rows.predictions.starts[self.rows])
        return self.part.files[None].index_select(0, starts)


def in_order(groups: Sequence[Group], answers: Sequence[Tensor]) -> Tensor:
    """Merge the outputs of groups in the order of the batch."""
    if len(answers) == 1:
        return answers[0]
    members = np.concatenate([group.members for group in groups])
    return torch.cat(list(answers))[torch.from_numpy(np.argsort(members))]


def token_places(ragged: Ragged, rows: np.ndarray, width: int) -> Tensor:
    """Index of each token's stored state, (B, T); positions after a row's end repeat its last
    token.

    Args:
        width: T.
    """
    steps = np.minimum(np.arange(width), ragged.counts[rows][:, None] - 1)
    return torch.from_numpy(ragged.starts[rows][:, None] + steps)


@dataclass(frozen=True)
class PredictionPlaces:
    """Location of a batch's predictions, P in total."""

    number: Tensor
    """(B, T): index of the prediction, 0 … P − 1; −1: none."""
    group: np.ndarray
    """Index of each prediction's group, (P,), in increasing order."""
    row: np.ndarray
    """Row in the file of the group, (P,)."""

    @classmethod
    def of(cls, groups: Sequence[Group], shape: tuple[int, int]) -> PredictionPlaces:
        """Locate the predictions of the groups.

        Args:
            shape: (B, T).
        """
        number, count = torch.full(shape, -1), 0
        of_group, rows = list[np.ndarray](), list[np.ndarray]()
        for which, group in enumerate(groups):
            for member, row in zip(group.members, group.rows, strict=True):
                tokens, start = group.part.rows.tokens_predicted(row)
                end = count + len(tokens)
                number[member, torch.from_numpy(tokens)] = torch.arange(count, end)
                rows.append(np.arange(start, start + len(tokens)))
                of_group.append(np.full(len(tokens), which))
                count = end
        return cls(number, np.concatenate(of_group), np.concatenate(rows))


class StoredLogits(LazyLogits):
    """Logits of tokens, read on demand from the files of a cache.

    Args:
        columns: number of logits to return, from the first; None: all.
    """

    dtype = torch.float32

    def __init__(
        self,
        groups: Sequence[Group],
        places: PredictionPlaces,
        columns: int | None,
        device: torch.device,
    ) -> None:
        self._files = [group.part.files[None] for group in groups]
        self._places, self._device = places, device
        self.shape = (*places.number.shape, columns or self._files[0].shape[1])

    def __getitem__(self, index: Index) -> Tensor:
        numbers = self._places.number[tuple(axis.cpu() for axis in index)].numpy()
        of_group, rows = self._places.group[numbers], self._places.row[numbers]
        found = torch.empty(len(numbers), self.shape[-1])
        for which, file in enumerate(self._files):
            members = np.flatnonzero(of_group == which)
            read = file.index_select(0, torch.from_numpy(rows[members]))
            found[torch.from_numpy(members)] = read[:, : self.shape[-1]]
        return found.to(self._device)


class StoredDistributions(SparseLogits):
    """Compressed distributions of tokens, decoded for the whole batch at once."""

    def __init__(
        self,
        folder: Path,
        header: CacheHeader,
        groups: Sequence[Group],
        places: PredictionPlaces,
        device: torch.device,
    ) -> None:
        codec = header.codec
        assert codec is not None
        packed = [
            group.part.files[None].numpy()[places.row[places.group == which]]
            for which, group in enumerate(groups)
        ]
        try:
            records = codec.decode(np.concatenate(packed))
        except ValueError as error:
            raise ArtifactError(
                f"the distributions in {folder} are damaged ({error}); remove the cache's folder "
                "and run its step again"
            ) from error
        self.is_bound, self.shape = header.is_bound, (*places.number.shape, codec.columns)
        self._stored = distributions_of(records, is_bucket=self.is_bound).to(device)
        self._number = places.number.to(device)

    def __getitem__(self, index: Index) -> SparseDistributions:
        return self._stored[self._number[index]]
