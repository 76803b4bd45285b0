"""The outlier-focused loss of one layer, number by number, as its formula is printed: padding
included, one batch, one spread."""

from __future__ import annotations

from torch import Tensor


def slow_eofd(student: Tensor, teacher: Tensor, power: float) -> float:
    """Mean over examples, tokens and dimensions of w_d · (student − teacher)²; both are (B, T, D).

    The spread is the sample's (divided by one less than the number of tokens), as torch's is.
    """
    batch, tokens, width = teacher.shape
    places = [(b, t) for b in range(batch) for t in range(tokens)]
    spreads: list[float] = []
    for d in range(width):
        values = [float(teacher[b, t, d]) for b, t in places]
        middle = sum(values) / len(values)
        variance = sum((value - middle) ** 2 for value in values) / (len(values) - 1)
        spreads.append(variance**0.5)
    usual = sum(spreads) / width
    total = 0.0
    for d in range(width):
        weight = (spreads[d] / usual) ** power
        for b, t in places:
            total += weight * (float(student[b, t, d]) - float(teacher[b, t, d])) ** 2
    return total / (batch * tokens * width)
