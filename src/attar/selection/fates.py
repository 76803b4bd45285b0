"""What became of each scored chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
