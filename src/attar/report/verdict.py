"""Whether a quality gate is met: the one decision, for the page and for the exit code alike.

The page is written before the engine judges, so both judge; were each to compare in its own words,
`0.79 >= 0.80 - 0.01` (true in binary) and `0.80 - 0.79 <= 0.01` (false) would part them. A limit
that is reached is met, rounding included:

    at least: value >= limit - TOLERANCE      at most: value <= limit + TOLERANCE
    max_drop: value >= reference - max_drop - TOLERANCE
"""

from __future__ import annotations

TOLERANCE = 1e-9
"""More than the rounding of a few additions near 1, less than one answer in any evaluation."""


def keeps_limits(
    value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    reference: float | None = None,
    max_drop: float | None = None,
) -> bool:
    """Whether `value` keeps every limit that is given; NaN keeps none.

    Args:
        reference: what `max_drop` counts from; both or neither.

    Example:
        >>> keeps_limits(0.79, reference=0.80, max_drop=0.01), keeps_limits(0.79, at_least=0.7901)
        (True, False)
    """
    floors = [] if at_least is None else [at_least]
    if reference is not None and max_drop is not None:
        floors.append(reference - max_drop)
    ceilings = [] if at_most is None else [at_most]
    return all(value >= floor - TOLERANCE for floor in floors) and all(
        value <= ceiling + TOLERANCE for ceiling in ceilings
    )
