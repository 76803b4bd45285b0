"""Three budgets of a first recipe, which has the same steps and differs only in numbers.

`quick` shows whether the task can be learned at all, `good` is the default, and `best` is for the
model to deploy. The number of epochs is computed from optimizer steps, because ten epochs of 600
rows and of 600,000 rows are not comparable:

    epochs = steps · batch_size / rows, not below `fewest` and not above `most`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BATCH = 32


@dataclass(frozen=True)
class Size:
    rows: int | None
    """Training rows; None: all."""
    steps: int
    """Target number of optimizer steps of a fine-tuning."""
    fewest: int
    most: int
    """Epochs."""
    language_model: str
    """Named size of the language model to pre-train."""
    tokens: int
    """Number of training tokens of the language model."""

    def epochs(self, rows: int) -> int:
        """Number of epochs of a fine-tuning on `rows` rows."""
        used = max(1, rows if self.rows is None else min(rows, self.rows))
        return min(self.most, max(self.fewest, math.ceil(self.steps * BATCH / used)))


SIZES: Mapping[str, Size] = {
    "quick": Size(2_000, 100, 1, 10, "pico", 200_000),
    "good": Size(50_000, 500, 3, 30, "nano", 5_000_000),
    "best": Size(None, 1_500, 5, 60, "micro", 50_000_000),
}


def by_size(chosen: str, value: Callable[[Size], Any]) -> tuple[Any, str]:
    """The value of a setting in the chosen size, and a comment with its values in all sizes.

    Example:
        >>> by_size("quick", lambda size: size.language_model)
        ('pico', 'quick: pico, good: nano, best: micro')
    """
    every = {name: value(size) for name, size in SIZES.items()}
    return every[chosen], ", ".join(f"{name}: {_shown(each)}" for name, each in every.items())


def _shown(value: Any) -> str:
    return "all" if value is None else f"{value:_}" if isinstance(value, int) else str(value)
