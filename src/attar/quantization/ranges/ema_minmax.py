"""`ema_minmax`: a moving average of the batches' extremes.

The mean over batches of their minimum and maximum, but with the later batches counting more: each
one moves the range a little towards its own ends. It is how quantization-aware training follows
activations that change; over a fixed model it is a mean whose weights depend on the order.

    low₁ = min x₁,  lowₙ = momentum · lowₙ₋₁ + (1 − momentum) · min xₙ,  and the same for high

Batches are sorted by length here, the longest first, so the shortest texts count most: see
`quantization.calibration.calibrate.length_sorted`.
Source: Jacob et al. 2018, section 3.1.
"""

from __future__ import annotations

from attar.quantization.method import ChosenRanges, Problem


def ema_minmax(problem: Problem) -> ChosenRanges:
    """The moving averages of the ends, from the first calibration batch to the last."""
    momentum = problem.config.momentum
    ranges = {
        site: (seen.ema_low(momentum), seen.ema_high(momentum))
        for site, seen in problem.calibration.statistics.items()
    }
    return ChosenRanges(ranges, {"momentum": momentum})
