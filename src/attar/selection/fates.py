"""Whether each scored chunk was kept, or why not; and a file of what a step could not use: one line
of JSON per row, with the reason."""

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
    """What a select step decided; arrays (N,), in corpus order."""

    scored: Scored
    fate: NDArray[np.uint8]
    keys: NDArray[np.float32]
    """What the cut is made by: the scores, or draws."""
    repeats: NDArray[np.int64] | None
    """Which chunk of these each one nearly repeats, −1 for none; None: it was not asked. Neither is
    set aside for another reason, so both have a score."""
    common: tuple[int, ...]
    """Numbers of the sources that have no share of their own."""
    is_by_score: bool
    """The keys are the scores."""


def write_set_aside(file: Path, rows: Iterable[SetAside]) -> None:
    """Equal rows give equal bytes.

    Raises:
        ResourceError: the disk is full.
    """
    with (
        disk_errors_explained(file.parent),
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,  # no name, no time
    ):
        for row in rows:
            line = json.dumps({"row": row.row, "reason": row.reason}, ensure_ascii=False)
            packed.write(f"{line}\n".encode())
