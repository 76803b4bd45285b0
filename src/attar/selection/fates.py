"""The fate of each scored chunk: kept, or why not. Also writes the rows that a step could not use,
one line of JSON per row with its reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attar.artifacts import disk_errors_explained
from attar.data.tables import SetAside
from attar.selection.scores import Scored

KEPT, BELOW, TRIMMED, SHORT, DUPLICATE, UNSCORED = range(6)
REASONS = (
    *("kept", "below the cut", "trimmed", "too short", "near duplicate"),
    "could not be scored",
)


@dataclass(frozen=True)
class Selection:
    """The decisions of a select step; arrays (N,), in corpus order."""

    scored: Scored
    fate: NDArray[np.uint8]
    keys: NDArray[np.float32]
    """Values that are compared with the cut: scores, or random numbers."""
    repeats: NDArray[np.int64] | None
    """For each chunk, the index of the chunk it nearly repeats, or −1; None: not computed. Neither
    of the two is set aside for another reason, so both have a score."""
    common: tuple[int, ...]
    """Numbers of the sources without their own share."""
    is_by_score: bool
    """Whether the keys are the scores."""


def write_set_aside(file: Path, rows: Iterable[SetAside]) -> None:
    """Write the rows that were set aside. Equal rows give equal bytes.

    Raises:
        ResourceError: the disk is full.
    """
    with (
        disk_errors_explained(file.parent),
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,  # reproducible: no name, no time
    ):
        for row in rows:
            line = json.dumps({"row": row.row, "reason": row.reason}, ensure_ascii=False)
            packed.write(f"{line}\n".encode())
