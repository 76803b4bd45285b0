"""What a quantization method is: a function from what calibration saw to a range for each site.

    def method(config, calibration, model) -> ChosenRanges

`model` has its weights on their grids already; a method that searches inserts candidates into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from attar.quantization.calibration import Calibration, Ranges


@dataclass(frozen=True)
class ChosenRanges:
    """A method's answer."""

    ranges: Ranges
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain data for the step's metrics: what was searched, what won and by how much."""


Method = Callable[[Any, Calibration, PreTrainedModel], ChosenRanges]
