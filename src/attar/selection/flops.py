"""Operations of forward passes over a corpus's chunks, and of the two ways to score it offline.

A decoder's operations over one text of T tokens are a·T + b·T²: its linear maps, and attention. Two
lengths give a and b, and with them the sum over any number of chunks. Padding is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from attar.models.cost import flops


def forward_flops(model: PreTrainedModel, tokens: NDArray[Any]) -> int:
    """Of one forward pass over texts of these numbers of tokens, exact but for padding."""
    one, two = flops(model, 1, 1), flops(model, 1, 2)
    squared = (two - 2 * one) // 2
    lengths = tokens.astype(np.float64)
    return round((one - squared) * lengths.sum() + squared * (lengths**2).sum())
