"""Data for the report's page on a selection: a histogram of scores, the result of other shares, and
example chunks.

Counts are exact and computed part by part, with memory independent of the size of the corpus.
Results for other values of α are looked up in a table of about 1,000 bins of the sort keys, which
is exact at bin edges. The edges are chosen so that each bin holds 0.1 % of the chunks: keys,
converted to integers (`ordered`), are counted by their upper 20 bits, and neighbouring counts are
merged. A bin has more than 0.1 % only if keys agree in all 20 bits.

Example chunks are random samples that depend on the seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar.artifacts import write_text
from attar.numerics.selection import cut_of, highest, ordered, share_of, spans, unordered
from attar.seeds import generator
from attar.selection.fates import BELOW, DUPLICATE, KEPT, REASONS, TRIMMED, UNSCORED, Selection
from attar.selection.near_duplicates import similarity
from attar.selection.scores import Details, Scored

EXPLORED_FILE = "explored.json"
LEFT_OUT = 12
"""Low bits of a key that the bins ignore: a relative width of 2⁻¹¹ or less."""
BINS, BARS = 1000, 72
MOST_SOURCES = 16
"""Number of sources counted separately; smaller ones are counted together."""
OUTSIDE = 0.001
"""Share of the lowest and of the highest scores outside the histogram's range."""
EXAMPLES, EXAMPLE_CHARACTERS = 5, 600
"""Number of chunks shown per group, and the number of characters shown of each."""
EXTREME = 0.01
"""The best, the worst and the middle examples are sampled from this share of the chunks."""
PLACES = (
    "best kept",
    "kept, at the cut",
    "rejected, at the cut",
    "middle",
    "worst",
    REASONS[TRIMMED],
    REASONS[DUPLICATE],
)
"""Groups of example chunks, in the order of the page."""

ReadTexts = Callable[[NDArray[np.int64]], Iterable[str]]
"""Increasing rows of the corpus → their texts."""
Members = Callable[[slice], NDArray[np.bool_]]
"""A part of the scored chunks → which of them are members."""


def write_explored(
    folder: Path, sources: Sequence[str], selection: Selection, read: ReadTexts, seed: int
) -> None:
    """Write the data that the report shows."""
    content = {
        "histogram": _histogram(selection),
        "shares": _shares(selection, sources),
        "examples": _examples(sources, selection, read, seed),
    }
    write_text(folder / EXPLORED_FILE, json.dumps(content, ensure_ascii=False, allow_nan=False))


def _histogram(selection: Selection) -> dict[str, Any]:
    """Bars of equal width; scores outside the range are counted in the first or last bar."""
    scores, is_scored = selection.scored.score, selection.fate != UNSCORED
    counts = _fine_counts(scores[part][is_scored[part]] for part in spans(len(scores)))
    below = np.cumsum(counts)
    ends = np.searchsorted(below, [OUTSIDE * below[-1], (1 - OUTSIDE) * below[-1]])
    low, high = (float(unordered(end << LEFT_OUT)) for end in (ends[0], ends[1] + 1))
    trim = min(
        (score.min() for score in _of(selection, scores, TRIMMED) if len(score)), default=None
    )
    width = max(high - low, 1e-3) / (BARS - 4)
    low, bars = low - 2 * width, np.zeros((len(REASONS), BARS), np.int64)
    for part in spans(len(scores)):
        found, fates = scores[part][is_scored[part]], selection.fate[part][is_scored[part]]
        place = np.clip((found - low) / width, 0, BARS - 1).astype(np.int64)
        counted = np.bincount(fates.astype(np.int64) * BARS + place, minlength=bars.size)
        bars += counted.reshape(bars.shape)
    return {
        "low": low,
        "width": width,
        "trim": None if trim is None else float(trim),
        "counts": dict(zip(REASONS, bars.tolist(), strict=True)),
    }


def _of(
    selection: Selection, values: NDArray[np.float32], fate: int
) -> Iterator[NDArray[np.float32]]:
    """The values of chunks with this fate, part by part."""
    return (values[part][selection.fate[part] == fate] for part in spans(len(values)))


def _fine_counts(parts: Iterator[NDArray[np.float32]]) -> NDArray[np.int64]:
    counts = np.zeros(2 ** (32 - LEFT_OUT), np.int64)
    for part in parts:
        counts += np.bincount(ordered(part) >> LEFT_OUT, minlength=len(counts))
    return counts


def _shares(selection: Selection, names: Sequence[str]) -> dict[str, Any]:
    """Result of other cuts for each source without its own share: its chunks and tokens in bins of
    the keys. A source without a name stands for all smaller ones together."""
    scored, fate = selection.scored, selection.fate
    slots, sources = _slots(scored, names)
    is_common = np.isin(np.arange(len(names)), selection.common)

    def free(part: slice) -> NDArray[np.bool_]:
        return is_common[scored.source[part]] & ((fate[part] == KEPT) | (fate[part] == BELOW))

    parts = list(spans(len(fate)))
    edges, bin_of = _bins(_fine_counts(selection.keys[part][free(part)] for part in parts))
    shape = (len(sources), len(edges))
    chunks, tokens = np.zeros(shape), np.zeros(shape)  # float64 is exact up to 2⁵³
    fixed, members, lowest = np.zeros((len(sources), 2)), 0, np.float32(np.inf)
    for part in parts:
        source, of_common = slots[scored.source[part]], is_common[scored.source[part]]
        is_free, is_kept = free(part), fate[part] == KEPT
        bins = bin_of[ordered(selection.keys[part][is_free]) >> LEFT_OUT]
        place = source[is_free] * len(edges) + bins
        chunks += np.bincount(place, minlength=chunks.size).reshape(shape)
        tokens += np.bincount(place, scored.tokens[part][is_free], tokens.size).reshape(shape)
        members += int(np.count_nonzero(of_common))
        lowest = min(lowest, selection.keys[part][of_common & is_kept].min(initial=np.inf))
        others = ~of_common & is_kept
        for column, weights in enumerate((None, scored.tokens[part][others])):
            fixed[:, column] += np.bincount(source[others], weights, len(sources))
    return {
        "edges": [float(str(edge)) for edge in edges],
        "members": members,
        "cut": float(lowest) if selection.is_by_score and np.isfinite(lowest) else None,
        "sources": [
            {
                "name": name,
                "chunks": chunks[slot].astype(np.int64).tolist(),
                "tokens": tokens[slot].astype(np.int64).tolist(),
                "fixed": fixed[slot].astype(np.int64).tolist(),
            }
            for slot, name in enumerate(sources)
        ],
    }


def _slots(scored: Scored, names: Sequence[str]) -> tuple[NDArray[np.int64], list[str | None]]:
    """Each source's row in a table of the largest sources, and their names."""
    counts = np.zeros(len(names), np.int64)
    for part in spans(len(scored)):
        counts += np.bincount(scored.source[part], minlength=len(names))
    order = [int(source) for source in np.argsort(-counts, kind="stable") if counts[source]]
    shown = order if len(order) <= MOST_SOURCES else order[: MOST_SOURCES - 1]
    slots = np.full(len(names), len(shown), np.int64)
    slots[shown] = np.arange(len(shown))
    return slots, [names[n] for n in shown] + ([None] if len(shown) < len(order) else [])


def _bins(counts: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Lower edges of about `BINS` bins of equal counts, in increasing order, and the bin of each
    fine count.
    """
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
    """Example chunks, from the best to the worst."""
    scored, repeats = selection.scored, selection.repeats
    shown = [
        (place, int(index), len(members))
        for place, members in _places(selection).items()
        for index in _drawn(
            _of_other_originals(members, repeats) if place == REASONS[DUPLICATE] else members,
            scored.score,
            generator(seed, "examples", place),
        )
    ]
    wanted = {index for _, index, _ in shown}
    if repeats is not None:
        wanted |= {int(repeats[index]) for place, index, _ in shown if place == REASONS[DUPLICATE]}
    indices = np.array(sorted(wanted), np.int64)
    details = scored.details(indices)
    texts = dict(zip(indices.tolist(), read(details.row), strict=True))
    told = {
        index: _example(sources, scored, index, details, place, texts[index])
        for place, index in enumerate(indices.tolist())
    }
    examples: list[dict[str, Any]] = []
    for place, index, members in shown:
        example = {"place": place, "of": members, **told[index]}
        if place == REASONS[DUPLICATE] and repeats is not None:
            other = int(repeats[index])
            alike = similarity(texts[index], texts[other])
            example["repeats"] = {**told[other], "similarity": alike}
        examples.append(example)
    return examples


def _places(selection: Selection) -> Mapping[str, NDArray[np.int64]]:
    """Group of examples → the chunks to sample from."""
    scores, fate, keys = selection.scored.score, selection.fate, selection.keys
    source, repeats = selection.scored.source, selection.repeats
    is_common = np.isin(np.arange(int(source.max(initial=0)) + 1), selection.common)

    def of(*fates: int, common: bool = False) -> Members:
        is_one = np.isin(np.arange(len(REASONS)), fates)
        if common:
            return lambda part: is_one[fate[part]] & is_common[source[part]]
        return lambda part: is_one[fate[part]]

    free = of(KEPT, BELOW)
    count = sum(int(np.count_nonzero(free(part))) for part in spans(len(fate)))
    cut = cut_of(lambda: (scores[part][free(part)] for part in spans(len(fate))), (count + 1) // 2)
    median = unordered(np.array([cut.key]))[0]
    places = {
        REASONS[TRIMMED]: np.flatnonzero(fate == TRIMMED),
        "best kept": _highest(selection, lambda part: scores[part], of(KEPT), EXTREME),
        "middle": _highest(selection, lambda part: -abs(scores[part] - median), free, EXTREME),
        "worst": _highest(selection, lambda part: -scores[part], of(BELOW), EXTREME),
    }
    if selection.is_by_score:
        kept, below = of(KEPT, common=True), of(BELOW, common=True)
        places["kept, at the cut"] = _highest(selection, lambda part: -keys[part], kept)
        places["rejected, at the cut"] = _highest(selection, lambda part: keys[part], below)
    if repeats is not None:
        places[REASONS[DUPLICATE]] = np.flatnonzero(repeats >= 0)
    return {place: places[place] for place in PLACES if len(places.get(place, ()))}


def _highest(
    selection: Selection,
    values: Callable[[slice], NDArray[np.float32]],
    members: Members,
    share: float = 0.0,
) -> NDArray[np.int64]:
    """The members with the highest values: the number of shown examples, or a share of all
    members."""
    size = len(selection.fate)
    of_all = sum(int(np.count_nonzero(members(part))) for part in spans(size))
    count = min(max(EXAMPLES, share_of(share, of_all)), of_all)
    return np.concatenate([np.zeros(0, np.int64), *highest(size, values, members, count)])


def _of_other_originals(
    members: NDArray[np.int64], repeats: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """The first near duplicate of each repeated chunk, so that a chunk with many copies is shown
    only once.
    """
    assert repeats is not None, "there are near duplicates"
    return members[np.unique(repeats[members], return_index=True)[1]]


def _drawn(
    members: NDArray[np.int64], scores: NDArray[np.float32], draw: np.random.Generator
) -> list[int]:
    """A random sample of the members, highest score first."""
    count = min(EXAMPLES, len(members))
    found = draw.choice(members, count, replace=False, shuffle=False)
    return found[np.argsort(-scores[found], kind="stable")].tolist()


def _example(
    sources: Sequence[str], scored: Scored, index: int, details: Details, place: int, text: str
) -> dict[str, Any]:
    return {
        "row": int(details.row[place]),
        "source": sources[scored.source[index]],
        "tokens": int(scored.tokens[index]),
        "bytes": len(text.encode()),
        **{name: float(values[place]) for name, values in details.by.items()},
        "text": text[:EXAMPLE_CHARACTERS],
        "characters": len(text),
    }
