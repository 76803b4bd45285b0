"""Two searches for the grid of 2^bits points with the minimum squared error for given values.

The grid must contain zero. The minimum of ‖X − Q(X; s, z)‖² has no closed form, so the scale s and
the zero point z are searched:

    grid              100 widths, k/100 of the full range of values, each with every zero point
    golden_section    the width by golden section to 1/100 of the full range, and for each width
                      the zero point by golden section over the integers

Zero points whose grid has an unused point outside the range of values are skipped: shifting such a
grid inwards by one point never increases the error, so the minimum is not missed. Golden section
assumes a unimodal function. The error is only approximately unimodal, so the search may end in a
nearby local minimum. The full range is always tried too, so neither search is worse than no
clipping.

Source: Choukroun et al. 2019 (OMSE); Outlier Suppression (Wei et al. 2022), table 15.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

Search = Literal["golden_section", "grid"]
NUM_WIDTHS = 100
GOLDEN = (math.sqrt(5) - 1) / 2
ErrorsOf = Callable[[float, np.ndarray], np.ndarray]
"""(scale, several zero points) → the squared error of each."""
Found = tuple[float, float, int]
"""(error, scale, zero point)."""


def nearest_range(
    low: float, high: float, bits: int, errors_of: ErrorsOf, search: Search
) -> tuple[float, float]:
    """The range (low, high) of the grid with the minimum error.

    Args:
        low, high: minimum and maximum of the values.
        errors_of: the squared error of the values on grids of `bits` bits.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return low, high
    levels, full = 2**bits - 1, high - low
    find = _on_grid if search == "grid" else _by_golden_section

    def best_at(width: float) -> Found:
        scale = width / levels
        zero_points = np.arange(
            max(0, levels - math.ceil(high / scale)), min(levels, math.ceil(-low / scale)) + 1
        )
        return find(scale, zero_points, errors_of)

    widths = [full * k / NUM_WIDTHS for k in range(1, NUM_WIDTHS + 1)]
    if search == "grid":
        found = min(map(best_at, widths))
    else:
        narrowest = _golden_section(lambda width: best_at(width)[0], widths[0], full, widths[0])
        found = min(best_at(narrowest), best_at(full))
    _, scale, zero_point = found
    return -zero_point * scale, (levels - zero_point) * scale


def _on_grid(scale: float, zero_points: np.ndarray, errors_of: ErrorsOf) -> Found:
    errors = errors_of(scale, zero_points)
    best = int(errors.argmin())
    return float(errors[best]), scale, int(zero_points[best])


def _by_golden_section(scale: float, zero_points: np.ndarray, errors_of: ErrorsOf) -> Found:
    """Search the zero point by golden section, or try all of them if there are at most three."""
    tried: dict[int, float] = {}

    def error_at(place: float) -> float:
        zero_point = round(place)
        if zero_point not in tried:
            tried[zero_point] = float(errors_of(scale, np.array([zero_point]))[0])
        return tried[zero_point]

    first, last = float(zero_points[0]), float(zero_points[-1])
    middle = _golden_section(error_at, first, last, 2.0)
    for zero_point in (math.floor(middle), math.ceil(middle), round(middle) - 1, round(middle) + 1):
        if first <= zero_point <= last:
            error_at(zero_point)
    error, best = min((error, zero_point) for zero_point, error in tried.items())
    return error, scale, best


def _golden_section(f: Callable[[float], float], left: float, right: float, width: float) -> float:
    """Midpoint of a bracket of at most `width` around a minimum of `f`."""
    inner, outer = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
    at_inner, at_outer = f(inner), f(outer)
    while right - left > width:
        if at_inner <= at_outer:
            right, outer, at_outer = outer, inner, at_inner
            inner = right - GOLDEN * (right - left)
            at_inner = f(inner)
        else:
            left, inner, at_inner = inner, outer, at_outer
            outer = left + GOLDEN * (right - left)
            at_outer = f(outer)
    return (left + right) / 2
