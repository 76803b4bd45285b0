"""The histogram of a selection's scores, and the data of its slider.

Unlike the other charts, this one is interactive: a script moves the cut. So it is drawn without
Vega, in units of its bars, and stretched by the page; text is HTML next to it. If one cut applies
to all sources, the kept area is the whole area clipped at the cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.charts.ticks import ticked
from attar.report.quantities import share_text
from attar.report.reading import Made, table
from attar.report.sections.selection import Selected

LOOKS = {
    "kept": "kept",
    "below the cut": "below",
    "trimmed": "trimmed",
    "too short": "short",
    "near duplicate": "duplicate",
}
"""Fate of a chunk → its class in the style sheet, from the bottom of the picture to its top."""
TICKS, EDGE, LEAST_WITHIN = 5, 0.02, 0.001


@dataclass(frozen=True)
class Area:
    """All chunks of one fate."""

    look: str
    path: str
    is_clipped: bool = False


@dataclass(frozen=True)
class Scores:
    label: str
    bars: int
    areas: tuple[Area, ...]
    keys: tuple[tuple[str, str, int], ...]
    """(class, meaning, number of chunks)."""
    ticks: tuple[tuple[float, str], ...]
    """(share of the width, label)."""
    cut: float | None
    """Position of the cut, in bars from the left."""
    trim: float | None
    shares: Mapping[str, Any]
    """Data for the script; empty if the chart is not interactive."""
    within: str
    """Resolution of the slider: maximum distance to a share that is known exactly."""


def scores_of(selected: Selected, made: Made) -> Scores | None:
    """The histogram of a select step; None: it has none."""
    histogram, shares = (table(made.explored.get(name)) for name in ("histogram", "shares"))
    counts = {look: table(histogram.get("counts")).get(fate, ()) for fate, look in LOOKS.items()}
    low, width, bars = histogram.get("low"), histogram.get("width"), len(counts["kept"])
    if low is None or not width or not bars:
        return None

    def place(score: float | None) -> float | None:
        return None if score is None else min(max((score - low) / width, 0.0), float(bars))

    total, cut, members = selected.total, place(shares["cut"]), shares["members"]
    fates = [(fate, count) for fate, count in selected.fates.items() if fate in LOOKS]
    keys = [(LOOKS[fate], fate, count) for fate, count in fates]
    said = ", ".join(f"{words} {share_text(count, total.chunks)}" for _, words, count in keys)
    axis = ticked(low, low + bars * width, TICKS)
    largest = max(
        map(sum, zip(*(source["chunks"] for source in shares["sources"]), strict=True)), default=0
    )
    return Scores(
        label=f"Scores of {total.chunks:,} chunks: {said}.",
        bars=bars,
        areas=_areas(counts, is_clipped=cut is not None and members == total.chunks),
        keys=tuple(keys),
        ticks=tuple(
            ((tick - low) / (bars * width), text)
            for tick, text in zip(axis.values, axis.labels, strict=True)
            if EDGE < (tick - low) / (bars * width) < 1 - EDGE
        ),
        cut=cut,
        trim=place(histogram["trim"]),
        shares=_moving(selected, shares, low, width) if largest and selected.is_explored else {},
        within=share_text(max(largest / 2, LEAST_WITHIN * members), members) if largest else "",
    )


def _moving(
    selected: Selected, shares: Mapping[str, Any], low: float, width: float
) -> dict[str, Any]:
    sources = [
        {
            "all": [row.chunks, row.tokens],
            "fixed": source["fixed"],
            "bins": [source["chunks"], source["tokens"]],
        }
        for row, source in zip(selected.sources, shares["sources"], strict=True)
    ]
    is_drawn = shares["cut"] is not None
    return {
        "edges": shares["edges"],
        "members": shares["members"],
        "free": sum(selected.fates.get(fate, 0) for fate in ("kept", "below the cut")),
        "sources": sources,
        "axis": [low, width] if is_drawn else None,
    }


def _areas(counts: Mapping[str, Sequence[int]], *, is_clipped: bool) -> tuple[Area, ...]:
    """Stacked bars; the tallest has the height of the picture."""
    most = max(map(sum, zip(*counts.values(), strict=True))) or 1
    base = [0.0] * len(counts["kept"])
    areas: list[Area] = []
    if is_clipped:
        free = [kept + below for kept, below in zip(counts["kept"], counts["below"], strict=True)]
        counts = {
            "below": free,
            **{look: counts[look] for look in ("trimmed", "short", "duplicate")},
        }
    for look, bars in counts.items():
        top = [low + count / most for low, count in zip(base, bars, strict=True)]
        if any(bars):
            areas.append(Area(look, _outline(base, top)))
        base = top
    if is_clipped:
        areas.append(Area("kept", areas[0].path, is_clipped=True))
    return tuple(areas)


def _outline(base: Sequence[float], top: Sequence[float]) -> str:
    """From the left along the tops, and back along the bases; 100 is the height of the picture."""
    over = [f"V{100 * (1 - height):.2f}H{bar + 1}" for bar, height in enumerate(top)]
    under = [f"V{100 * (1 - height):.2f}H{bar}" for bar, height in reversed([*enumerate(base)])]
    return f"M0 {100 * (1 - base[0]):.2f}{''.join(over)}{''.join(under)}Z"
