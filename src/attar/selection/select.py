"""`run = "select"`: a corpus and the scores of its chunks in; the chunks that teach most out.

Difference sampling (MiniPLM, arXiv 2410.17215): a chunk's score is the mean log-probability a token
that the teacher gives it, less the reference's,

    r(x) = (log p_T(x) − log p_ref(x)) / |x|,

and the ⌊αN⌋ chunks with the highest scores are kept, in corpus order; of equal scores the earlier
chunk goes first. `gumbel` adds Gumbel noise of a temperature to the scores before the cut, which
draws without replacement in proportion to exp(r / temperature); `random` keeps chunks by chance;
`proxy` takes the scores that a small model predicts (`attar.selection.proxy`).

What can be wrong with a high score: a chunk that repeats itself, which the teacher copies and the
reference cannot (`trim` sets the very highest aside), and a near duplicate, which has its
original's score (`near_duplicates`). N counts what is set aside too, so that filters change what is
kept and not how much.

The selection is a view: row numbers of the corpus, from 0 over all its shards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save_file

from attar.artifacts import disk_errors_explained
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import KEPT_FILE, CorpusView
from attar.errors import DataError, UsageError
from attar.numerics.selection import Cut, cut_of
from attar.selection.config import NearDuplicates, SelectStep
from attar.selection.diversity import diversity
from attar.selection.explored import write_explored
from attar.selection.fates import (
    BELOW,
    DUPLICATE,
    KEPT,
    REASONS,
    SHORT,
    TRIMMED,
    UNSCORED,
    Selection,
)
from attar.selection.near_duplicates import near_duplicates
from attar.selection.score import corpus_of
from attar.selection.scores import Scored, read_scored
from attar.step import StepContext

REJECTED_FILE = "rejected.parquet"


def select(config: SelectStep, context: StepContext) -> dict[str, Any]:
    """Write the rows that are kept, and the others with their scores and reasons.

    Raises:
        AttarError: whatever a user can mend.
    """
    corpus = corpus_of(context, config.data)
    sources: list[str] = corpus.about["sources"]
    folders = {name: context.inputs[step] for name, step in config.scored_by.items()}
    scored = read_scored(corpus, folders, context.name)
    seed = context.seed if config.seed is None else config.seed
    repeats = _repeats(config.duplicates, corpus, scored)
    fate = _set_aside(config, scored, repeats)
    keys = _keys(config, scored, seed)
    for source, share in _shares(config, sources, context.name):
        members = np.flatnonzero(np.isin(scored.source, source))
        _keep(fate, keys, members, share)
    common = [n for n, source in enumerate(sources) if source not in config.keep_by_source]
    is_by_score = config.method in ("difference_sampling", "proxy")
    selection = Selection(scored, fate, keys, repeats, tuple(common), is_by_score)
    metrics = selection_metrics(config, sources, selection)
    if config.diversity is not None:
        metrics["diversity"] = diversity(config.diversity, context, corpus, selection, seed)
    _write(context.folder, scored, fate)

    def read(rows: NDArray[np.int64]) -> Iterator[str]:
        return CorpusView(corpus, kept=rows).all_texts()

    write_explored(context.folder, sources, selection, read, seed)
    return metrics


def _repeats(
    config: NearDuplicates | None, corpus: Corpus, scored: Scored
) -> NDArray[np.int64] | None:
    """Which of the scored chunks each one nearly repeats, −1 for none; None: it is not asked."""
    if config is None:
        return None
    found = near_duplicates(CorpusView(corpus, kept=scored.row).all_texts(), config.threshold)
    return np.fromiter((-1 if first is None else first for first in found), np.int64)


def _set_aside(
    config: SelectStep, scored: Scored, repeats: NDArray[np.int64] | None
) -> NDArray[np.uint8]:
    """Which chunks cannot be kept, whatever their score relative to the others'."""
    fate = np.full(len(scored.row), BELOW, np.uint8)
    fate[scored.tokens < config.minimum_tokens] = SHORT
    if repeats is not None and config.duplicates is not None and config.duplicates.filter:
        fate[(repeats >= 0) & (fate == BELOW)] = DUPLICATE
    is_scored = np.isfinite(scored.score)
    fate[~is_scored] = UNSCORED
    highest = min(_floor(config.trim * len(fate)), int(is_scored.sum()))
    if highest:
        scores = np.where(is_scored, scored.score, -np.inf).astype(np.float32)
        cut = cut_of(lambda: iter([scores]), highest)
        fate[cut.keeps(scores, 0) & (fate == BELOW)] = TRIMMED
    return fate


def _keys(config: SelectStep, scored: Scored, seed: int) -> NDArray[np.float32]:
    """What the cut is made by."""
    draw = np.random.default_rng(np.random.SeedSequence((seed, len(scored.row))))
    if config.method == "random":
        return draw.random(len(scored.row), np.float32)
    if config.method == "gumbel":
        noise = draw.gumbel(size=len(scored.row))
        return (scored.score + config.temperature * noise).astype(np.float32)
    return scored.score


def _shares(config: SelectStep, sources: list[str], step: str) -> Iterator[tuple[list[int], float]]:
    """Groups of sources, by number, each with the share that is kept of it.

    Raises:
        UsageError: a source that the corpus does not have.
    """
    if strange := sorted(set(config.keep_by_source) - set(sources)):
        raise UsageError(
            f"{step}: keep_by_source names {', '.join(map(repr, strange))}; the corpus has the "
            f"sources {', '.join(map(repr, sources))}"
        )
    for source, share in config.keep_by_source.items():
        yield [sources.index(source)], share
    rest = [n for n, source in enumerate(sources) if source not in config.keep_by_source]
    if rest:
        yield rest, config.keep


def _keep(
    fate: NDArray[np.uint8], keys: NDArray[np.float32], members: NDArray[np.int64], share: float
) -> None:
    """Keep the ⌊share · N⌋ best of N members, as far as they may be kept."""
    free = members[fate[members] == BELOW]
    count = min(_floor(share * len(members)), len(free))
    if count:
        cut: Cut = cut_of(lambda: iter([keys[free]]), count)
        fate[free[cut.keeps(keys[free], 0)]] = KEPT


def _floor(count: float) -> int:
    """⌊count⌋, where 0.29 · 100 is 29."""
    return math.floor(round(count, 9))


def _write(folder: Path, scored: Scored, fate: NDArray[np.uint8]) -> None:
    is_kept = fate == KEPT
    with disk_errors_explained(folder):
        save_file(
            {
                "row": scored.row[is_kept],
                **{name: values[is_kept] for name, values in scored.by.items()},
            },
            folder / KEPT_FILE,
        )
        table = pa.table(
            {
                "row": scored.row[~is_kept],
                **{name: values[~is_kept] for name, values in scored.by.items()},
                "reason": pa.DictionaryArray.from_arrays(
                    pa.array(fate[~is_kept], pa.int8()), pa.array(REASONS)
                ),
            }
        )
        pq.write_table(table, folder / REJECTED_FILE, compression="zstd")


def selection_metrics(
    config: SelectStep, sources: list[str], selection: Selection
) -> dict[str, Any]:
    """What the step says of its selection.

    Raises:
        DataError: nothing is kept.
    """
    scored, fate = selection.scored, selection.fate
    is_kept = fate == KEPT
    counts = zip(REASONS, np.bincount(fate, minlength=len(REASONS)).tolist(), strict=True)
    fates = {reason: count for reason, count in counts if count}
    if not is_kept.any():
        listed = ", ".join(f"{count} {reason}" for reason, count in fates.items())
        raise DataError(
            f"nothing is kept of {len(fate)} scored chunks ({listed or 'none was scored'}); raise "
            "keep, loosen the filters, or score more of the corpus"
        )
    metrics = {
        "data": config.data,
        "method": config.method,
        "keep": config.keep,
        "chunks": len(fate),
        "kept": int(is_kept.sum()),
        "kept_tokens": int(scored.tokens[is_kept].sum()),
        "tokens": int(scored.tokens.sum()),
        "fates": fates,
        "sources": _by_source(sources, scored, is_kept),
        "cut": float(scored.score[is_kept].min()),
        "mean_score": {
            "kept": float(scored.score[is_kept].mean()),
            "all": float(np.nanmean(scored.score)),
        },
    }
    if selection.repeats is not None:
        found = selection.repeats >= 0
        metrics["near_duplicates"] = {"all": int(found.sum()), "kept": int(found[is_kept].sum())}
    return metrics


def _by_source(
    sources: list[str], scored: Scored, is_kept: NDArray[np.bool_]
) -> dict[str, dict[str, int]]:
    weights = (None, is_kept, scored.tokens, scored.tokens * is_kept)
    counts = [np.bincount(scored.source, of, len(sources)).astype(np.int64) for of in weights]
    names = ("chunks", "kept", "tokens", "kept_tokens")
    return {
        source: dict(zip(names, row, strict=True))
        for source, row in zip(sources, np.transpose(counts).tolist(), strict=True)
    }
