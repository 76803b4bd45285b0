"""A table for a terminal: columns aligned, with two blanks between them."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], names: int = 1) -> list[str]:
    """A line for each row; the first `names` columns to the left, figures to the right.

    Example:
        >>> aligned([("model", "MiB"), ("teacher", "86.7"), ("int8", "9")])
        ['model     MiB', 'teacher  86.7', 'int8        9']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return [line.rstrip() for line in lines]
