"""What the report shows of a selection: a histogram of its scores, what another share would keep,
and chunks to read.

Counts are exact and taken part by part, in memory that does not grow with the corpus. The question
"and with α = 0.3?" is answered from a table of about 1,000 bins of the keys that the cut is made
by: at the edge of a bin everything is known exactly. The edges are chosen so that each bin holds
0.1 % of the chunks: read as an integer (`ordered`), a key is counted by its upper 20 bits, and
neighbouring counts are joined. More than 0.1 % is in a bin only where keys agree in all 20 bits.

Chunks to read are samples, drawn by the seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.artifacts import write_text
from attar.numerics.selection import ordered, unordered
from attar.seeds import generator
from attar.selection.fates import BELOW, DUPLICATE, KEPT, REASONS, TRIMMED, UNSCORED, Selection
from attar.selection.near_duplicates import similarity
from attar.selection.scores import Scored

EXPLORED_FILE = "explored.json"
PART = 2**20
"""Chunks looked at together."""
LEFT_OUT = 12
"""Bits of a key that the bins do not tell apart: a relative width of 2⁻¹¹ or less."""
BINS, BARS = 1000, 72
MOST_SOURCES = 16
"""Sources counted by themselves; smaller ones are counted together."""
OUTSIDE = 0.001
"""Share of the lowest, and of the highest scores that lie beyond the drawn ones."""
EXAMPLES, EXAMPLE_CHARACTERS = 5, 600
"""Chunks shown of each place, and the beginning of each that is."""
EXTREME = 0.01
"""The best, the worst and the middle ones are drawn from this share."""
PLACES = (
    "best kept",
    "kept, at the cut",
    "rejected, at the cut",
    "middle",
    "worst",
    REASONS[TRIMMED],
    REASONS[DUPLICATE],
)
"""Where chunks to read are drawn, in the order of the page."""

ReadTexts = Callable[[NDArray[np.int64]], Iterable[str]]
"""Rows of the corpus, rising → their texts."""


def write_explored(
    folder: Path, sources: Sequence[str], selection: Selection, read: ReadTexts, seed: int
) -> None:
    """Write what the report shows."""
    content = {
        "histogram": _histogram(selection),
        "shares": _shares(selection, sources),
        "examples": _examples(sources, selection, read, seed),
    }
    write_text(folder / EXPLORED_FILE, json.dumps(content, ensure_ascii=False, allow_nan=False))


def _histogram(selection: Selection) -> dict[str, Any]:
    """Bars of equal width; what lies beyond the first or the last is counted in it."""
    scores, is_scored = selection.scored.score, selection.fate != UNSCORED
    counts = _fine_counts(scores[part][is_scored[part]] for part in _parts(selection))
    below = np.cumsum(counts)
    ends = np.searchsorted(below, [OUTSIDE * below[-1], (1 - OUTSIDE) * below[-1]])
    low, high = (float(unordered(end << LEFT_OUT)) for end in (ends[0], ends[1] + 1))
    trimmed = scores[selection.fate == TRIMMED]
    trim = float(trimmed.min()) if len(trimmed) else None
    width = max(high - low, 1e-3) / (BARS - 4)
    low, bars = low - 2 * width, np.zeros((len(REASONS), BARS), np.int64)
    for part in _parts(selection):
        found, fates = scores[part][is_scored[part]], selection.fate[part][is_scored[part]]
        place = np.clip((found - low) / width, 0, BARS - 1).astype(np.int64)
        counted = np.bincount(fates.astype(np.int64) * BARS + place, minlength=bars.size)
        bars += counted.reshape(bars.shape)
    return {
        "low": low,
        "width": width,
        "trim": trim,
        "counts": dict(zip(REASONS, bars.tolist(), strict=True)),
    }


def _parts(selection: Selection) -> Iterator[slice]:
    return (slice(at, at + PART) for at in range(0, len(selection.fate), PART))


def _fine_counts(parts: Iterator[NDArray[np.float32]]) -> NDArray[np.int64]:
    counts = np.zeros(2 ** (32 - LEFT_OUT), np.int64)
    for part in parts:
        counts += np.bincount(ordered(part) >> LEFT_OUT, minlength=len(counts))
    return counts


def _shares(selection: Selection, names: Sequence[str]) -> dict[str, Any]:
    """What another cut would keep of each source that has no share of its own: its chunks and
    tokens in bins of the keys. A source without a name is all the smaller ones together."""
    scored, fate = selection.scored, selection.fate
    slots, sources = _slots(scored, names)
    is_common = np.isin(scored.source, selection.common)
    is_free = is_common & ((fate == KEPT) | (fate == BELOW))
    counts = _fine_counts(selection.keys[part][is_free[part]] for part in _parts(selection))
    edges, bin_of = _bins(counts)
    shape = (len(sources), len(edges))
    chunks, tokens = np.zeros(shape, np.int64), np.zeros(shape)
    for part in _parts(selection):
        free = is_free[part]
        bins = bin_of[ordered(selection.keys[part][free]) >> LEFT_OUT]
        place = slots[scored.source[part][free]] * len(edges) + bins
        chunks += np.bincount(place, minlength=chunks.size).reshape(shape)
        tokens += np.bincount(place, scored.tokens[part][free], tokens.size).reshape(shape)
    lowest = selection.keys[is_common & (fate == KEPT)]
    fixed = np.flatnonzero(~is_common & (fate == KEPT))
    return {
        "edges": [float(str(edge)) for edge in edges],
        "members": int(is_common.sum()),
        "cut": float(lowest.min()) if selection.is_by_score and len(lowest) else None,
        "sources": [
            {
                "name": name,
                "chunks": chunks[slot].tolist(),
                "tokens": tokens[slot].astype(np.int64).tolist(),
                "fixed": [
                    int((slots[scored.source[fixed]] == slot).sum()),
                    int(scored.tokens[fixed][slots[scored.source[fixed]] == slot].sum()),
                ],
            }
            for slot, name in enumerate(sources)
        ],
    }


def _slots(scored: Scored, names: Sequence[str]) -> tuple[NDArray[np.int64], list[str | None]]:
    """The row of each source in a table of the largest ones, and their names."""
    counts = np.bincount(scored.source, minlength=len(names))
    order = [int(source) for source in np.argsort(-counts, kind="stable") if counts[source]]
    shown = order if len(order) <= MOST_SOURCES else order[: MOST_SOURCES - 1]
    slots = np.full(len(names), len(shown), np.int64)
    slots[shown] = np.arange(len(shown))
    return slots, [names[n] for n in shown] + ([None] if len(shown) < len(order) else [])


def _bins(counts: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Lower edges of about `BINS` bins of equal counts, rising, and the bin of each fine count."""
    before = np.cumsum(counts) - counts
    used = np.flatnonzero(counts)
    first, bins = np.unique(before[used] * BINS // max(int(counts.sum()), 1), return_inverse=True)
    bin_of = np.zeros(len(counts), np.int64)
    bin_of[used] = bins
    lowest = used[np.searchsorted(bins, np.arange(len(first)))]
    return unordered(lowest << LEFT_OUT), bin_of


def _examples(
    sources: Sequence[str], selection: Selection, read: ReadTexts, seed: int
) -> list[dict[str, Any]]:
    """Chunks to read, from the best to the worst."""
    scored = selection.scored
    shown = [
        (place, int(index), len(members))
        for place, members in _places(selection).items()
        for index in _drawn(members, scored.score, generator(seed, "examples", place))
    ]
    repeats = selection.repeats
    wanted = {index for _, index, _ in shown}
    if repeats is not None:
        wanted |= {int(repeats[index]) for place, index, _ in shown if place == REASONS[DUPLICATE]}
    indices = np.array(sorted(wanted), np.int64)
    texts = dict(zip(indices.tolist(), read(scored.row[indices]), strict=True))
    examples: list[dict[str, Any]] = []
    for place, index, members in shown:
        example = {"place": place, "of": members, **_example(sources, scored, index, texts[index])}
        if place == REASONS[DUPLICATE] and repeats is not None:
            other = int(repeats[index])
            example["repeats"] = {
                **_example(sources, scored, other, texts[other]),
                "similarity": similarity(texts[index], texts[other]),
            }
        examples.append(example)
    return examples


def _places(selection: Selection) -> Mapping[str, NDArray[np.int64]]:
    """Where chunks are drawn, and which ones those are."""
    scores, fate, keys = selection.scored.score, selection.fate, selection.keys
    kept, below = np.flatnonzero(fate == KEPT), np.flatnonzero(fate == BELOW)
    free = np.flatnonzero((fate == KEPT) | (fate == BELOW))
    places = {
        REASONS[TRIMMED]: np.flatnonzero(fate == TRIMMED),
        "best kept": _highest(scores, kept, EXTREME),
        "middle": _highest(-abs(scores - np.median(scores[free])), free, EXTREME),
        "worst": _highest(-scores, below, EXTREME),
    }
    if selection.is_by_score:
        is_common = np.isin(selection.scored.source, selection.common)
        places["kept, at the cut"] = _highest(-keys, kept[is_common[kept]], 0.0)
        places["rejected, at the cut"] = _highest(keys, below[is_common[below]], 0.0)
    if selection.repeats is not None:
        places[REASONS[DUPLICATE]] = np.flatnonzero(selection.repeats >= 0)
    return {place: places[place] for place in PLACES if len(places.get(place, ()))}


def _highest(
    values: NDArray[np.float32], members: NDArray[np.int64], share: float
) -> NDArray[np.int64]:
    """Those members that have the highest values, as many as are shown or a share of all."""
    count = max(EXAMPLES, round(share * len(members)))
    if count >= len(members):
        return members
    lowest = np.partition(values[members], -count)[-count]
    found = members[values[members] >= lowest]
    return found[np.argsort(-values[found], kind="stable")[:count]]


def _drawn(
    members: NDArray[np.int64], scores: NDArray[np.float32], draw: np.random.Generator
) -> list[int]:
    """A few of them, the highest score first."""
    count = min(EXAMPLES, len(members))
    found = draw.choice(members, count, replace=False, shuffle=False)
    return found[np.argsort(-scores[found], kind="stable")].tolist()


def _example(sources: Sequence[str], scored: Scored, index: int, text: str) -> dict[str, Any]:
    return {
        "row": int(scored.row[index]),
        "source": sources[scored.source[index]],
        "tokens": int(scored.tokens[index]),
        "bytes": len(text.encode()),
        **{name: float(values[index]) for name, values in scored.by.items()},
        "text": text[:EXAMPLE_CHARACTERS],
        "characters": len(text),
    }
