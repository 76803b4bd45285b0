"""Ticks of a value axis: round numbers within the bounds of the metric, with distinct labels.

Vega's default ticks follow the padded range with a fixed number of digits: accuracy goes up to
102 %, and a loss between 0.6931 and 0.6934 has six ticks labelled 0.693.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from attar.report.charts.labels import text_width
from attar.report.charts.svg import FONT_PX, Shape, alt, flat_title
from attar.report.quantities import QUALITIES, SHOWN_AS_PERCENT

ROUND = (1, 2, 5, 10)
"""Allowed steps, times a power of ten."""
LEAST_STEP = 0.7
"""Minimum step relative to the ideal distance; slightly closer is better than the next round step,
2.5 × as far."""
MOST_DECIMALS = 6
"""Finer steps are labelled with an exponent."""
LABEL_AIR_PX = 8
"""Between a label and the plot, and before the picture's edge."""


@dataclass(frozen=True)
class Ticks:
    """Where ticks stand, and how they read."""

    values: tuple[float, ...]
    format: str
    """Number format, valid in Python and d3."""
    factor: int
    """100 if labels are in percent."""

    @property
    def labels(self) -> list[str]:
        return [format(value * self.factor, self.format) for value in self.values]

    @property
    def axis(self) -> dict[str, Any]:
        """Settings of Altair's axis."""
        expression = f"format(datum.value * {self.factor}, '{self.format}')"
        return {"values": list(self.values), "labelExpr": expression}

    def fitted(self, shape: Shape) -> Shape:
        """The shape with room for the labels on its left."""
        widest = max((text_width(label, FONT_PX) for label in self.labels), default=0)
        return replace(shape, left=max(shape.left, int(widest) + LABEL_AIR_PX))


def upright(
    field: str, heights: tuple[float, float], title: str, ticks: Ticks, shape: Shape
) -> Any:
    """The vertical axis of a field: what `heights` bound, fitted, with its title above it."""
    return alt.Y(
        f"{field}:Q",
        scale=alt.Scale(domain=list(heights), nice=False, zero=False),
        axis=alt.Axis(title=title, **ticks.axis, **flat_title(shape), ticks=False),
    )


def ticked(
    low: float, high: float, count: int, metric: str = "", *, is_share: bool = False
) -> Ticks:
    """About `count` ticks on an axis from `low` to `high`.

    Args:
        metric: ticks stay within its bounds.
        is_share: whether labels are in percent.

    Example:
        >>> ticked(0.93, 1.02, 5, "accuracy", is_share=True).labels
        ['94', '96', '98', '100']
    """
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in ROUND if factor * power >= LEAST_STEP * raw)
    if metric in QUALITIES:
        low = max(low, 0.0 if metric in SHOWN_AS_PERCENT else -1.0)
        high = min(high, 1.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = tuple(place * step for place in range(first, last + 1))
    factor = 100 if is_share else 1
    return Ticks(values, _format(values, step, factor), factor)


def _format(values: tuple[float, ...], step: float, factor: int) -> str:
    """A format with as many digits as the step needs."""
    decimals = max(-math.floor(math.log10(step * factor) + 1e-9), 0)
    if decimals <= MOST_DECIMALS:
        return f".{decimals}f"
    largest = max((abs(value) for value in values), default=step) or step
    return f".{max(math.floor(math.log10(largest)) - math.floor(math.log10(step)), 0)}e"
