"""A select step over made-up scores: what the real step writes for the report, in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import made_up_run
from attar.selection.config import SelectStep
from attar.selection.explored import write_explored
from attar.selection.fates import BELOW, DUPLICATE, KEPT, SHORT, TRIMMED, Selection
from attar.selection.scores import Details, Scored
from attar.selection.select import selection_metrics

SOURCES = ["books", "code", "web", "talk"]
HOSTILE = (
    "</script><script>document.title='owned'</script>\x00\x1b[2J\u202eright to left\u2028 "
    "<img src=x onerror=\"document.title='owned'\">\n\tindented & “quoted”"
)


def selection(count: int, seed: int = 0, keep: float = 0.5, sources: int = 4) -> Selection:
    """Scores of sources that differ in mean, a trim, short chunks and near duplicates."""
    draw = np.random.default_rng(seed)
    source = draw.choice(sources, count, p=np.arange(sources, 0, -1) / sum(range(sources + 1)))
    teacher = draw.normal(-2.5, 0.5, count).astype(np.float32)
    score = draw.normal(0.1 * source - 0.2, 0.3).astype(np.float32)
    tokens = draw.integers(20, 1025, count)
    details = Details(np.arange(count), {"teacher": teacher, "reference": teacher - score})
    ends = np.array([count])
    scored = Scored(
        *(teacher - (teacher - score), source.astype(np.uint16), tokens, ends),
        read=lambda _: details,
    )
    fate = np.full(count, BELOW, np.uint8)
    fate[tokens < 40] = SHORT
    repeats = np.where(draw.random(count) < 0.05, np.arange(count) // 2, -1)
    fate[(repeats >= 0) & (fate == BELOW)] = DUPLICATE
    trimmed = np.argsort(-scored.score)[: count // 100]
    fate[trimmed[fate[trimmed] == BELOW]] = TRIMMED
    free = np.flatnonzero(fate == BELOW)
    best = free[np.argsort(-scored.score[free], kind="stable")[: int(keep * count)]]
    fate[best] = KEPT
    return Selection(scored, fate, scored.score, repeats, tuple(range(sources)), True)


def texts_of(text: str) -> Callable[[NDArray[np.int64]], Iterable[str]]:
    """Reads the same text in every row."""
    return lambda rows: (f"chunk {row}: {text}" for row in rows)


def write_selection(folder: Path, made: Selection, text: str = "text", keep: float = 0.5) -> Path:
    """The published folder of the step."""
    sources = [*SOURCES, *(f"source {n}" for n in range(len(SOURCES), len(made.common)))]
    config = SelectStep(data="corpus", teacher="t", reference="r", keep=keep)
    metrics = selection_metrics(config, sources, made)
    step = made_up_run.write_step(folder, "kept", "select", metrics)
    write_explored(step, sources, made, texts_of(text), seed=0)
    return step
