"""Ticks of a value axis: round numbers that the metric can reach, each with a label of its own.

Left to themselves, ticks follow the padded range and a fixed number of digits: accuracy then reads
up to 102 %, and a loss between 0.6931 and 0.6934 has six ticks that all say 0.693.
"""

from __future__ import annotations

import math
from typing import Any

from attar.report.quantities import QUALITIES, SHOWN_AS_PERCENT

ROUND = (1, 2, 5, 10)
"""Steps, times a power of ten."""
MOST_DECIMALS = 6
"""Finer steps are labelled with an exponent."""


def ticked(
    low: float, high: float, count: int, metric: str = "", *, is_share: bool = False
) -> dict[str, Any]:
    """`values` and `labelExpr` of an axis from `low` to `high` with about `count` ticks.

    Args:
        metric: its bounds are never passed.
        is_share: labelled in percent.

    Example:
        >>> [round(value, 2) for value in ticked(0.93, 1.02, 5, "accuracy")["values"]]
        [0.94, 0.96, 0.98, 1.0]
    """
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in ROUND if factor * power >= raw * (1 - 1e-9))
    if metric in QUALITIES:
        low = max(low, 0.0 if metric in SHOWN_AS_PERCENT else -1.0)
        high = min(high, 1.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [place * step for place in range(first, last + 1)]
    shown = f"datum.value{' * 100' if is_share else ''}"
    return {"values": values, "labelExpr": f"format({shown}, '{_format(values, step, is_share)}')"}


def _format(values: list[float], step: float, is_share: bool) -> str:
    """As many digits as the step has."""
    decimals = max(-math.floor(math.log10(step * (100 if is_share else 1)) + 1e-9), 0)
    if decimals <= MOST_DECIMALS:
        return f".{decimals}f"
    largest = max((abs(value) for value in values), default=step) or step
    return f".{max(math.floor(math.log10(largest)) - math.floor(math.log10(step)), 0)}e"
