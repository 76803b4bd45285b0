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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save_file

from attar.artifacts import disk_errors_explained, write_json
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import KEPT_FILE, CorpusView
from attar.errors import DataError, UsageError
from attar.numerics.selection import Cut, cut_of
from attar.selection.config import SelectStep
from attar.selection.near_duplicates import near_duplicates
from attar.selection.score import corpus_of
from attar.selection.scores import Scored, read_scored
from attar.step import StepContext

REJECTED_FILE = "rejected.parquet"
EXAMPLES_FILE = "examples.json"
EXAMPLES, EXAMPLE_CHARACTERS = 5, 600
"""Chunks shown of each place, and the beginning of each that is."""
KEPT, BELOW, TRIMMED, SHORT, DUPLICATE, UNSCORED = range(6)
REASONS = (
    *("kept", "below the cut", "among the highest", "too short", "near duplicate"),
    "could not be scored",
)


def select(config: SelectStep, context: StepContext) -> dict[str, Any]:
    """Write the rows that are kept, and the others with their scores and reasons.

    Raises:
        AttarError: whatever a user can mend.
    """
    corpus = corpus_of(context, config.data)
    folders = {name: context.inputs[step] for name, step in config.scored_by.items()}
    scored = read_scored(corpus, folders, context.name)
    seed = context.seed if config.seed is None else config.seed
    fate = _set_aside(config, corpus, scored)
    keys = _keys(config, scored, seed)
    for source, share in _shares(config, corpus.about["sources"], context.name):
        members = np.flatnonzero(np.isin(scored.source, source))
        _keep(fate, keys, members, share)
    _write(context.folder, scored, fate)
    write_json(context.folder / EXAMPLES_FILE, _examples(corpus, scored, fate))
    return _metrics(config, corpus, scored, fate)


def _set_aside(config: SelectStep, corpus: Corpus, scored: Scored) -> NDArray[np.uint8]:
    """Which chunks cannot be kept, whatever their score relative to the others'."""
    fate = np.full(len(scored.row), BELOW, np.uint8)
    fate[scored.tokens < config.minimum_tokens] = SHORT
    if config.near_duplicates is not None:
        texts = CorpusView(corpus, kept=scored.row).all_texts()
        repeats = near_duplicates(texts, config.near_duplicates)
        is_repeat = np.fromiter((found is not None for found in repeats), np.bool_)
        fate[is_repeat & (fate == BELOW)] = DUPLICATE
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


def _examples(corpus: Corpus, scored: Scored, fate: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Chunks to read: the best and the worst, and the kept and rejected ones nearest to the cut."""
    order = np.argsort(-scored.score, kind="stable")
    kept, below = order[fate[order] == KEPT], order[fate[order] == BELOW]
    groups = {
        "trimmed": order[fate[order] == TRIMMED][:EXAMPLES],
        "best kept": kept[:EXAMPLES],
        "kept, at the cut": kept[-EXAMPLES:],
        "rejected, at the cut": below[:EXAMPLES],
        "worst": below[-EXAMPLES:],
    }
    shown = [(place, int(index)) for place, group in groups.items() for index in group]
    rows = sorted({int(scored.row[index]) for _, index in shown})
    view = CorpusView(corpus, kept=np.array(rows, np.int64))
    texts = dict(zip(rows, view.all_texts(), strict=True))
    return [
        {
            "place": place,
            "row": int(scored.row[index]),
            **{name: float(values[index]) for name, values in scored.by.items()},
            "text": _shown(texts[int(scored.row[index])]),
        }
        for place, index in shown
    ]


def _shown(text: str) -> str:
    """The beginning of a text, control characters made visible as one sign."""
    beginning = text[:EXAMPLE_CHARACTERS]
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in beginning)


def _metrics(
    config: SelectStep, corpus: Corpus, scored: Scored, fate: NDArray[np.uint8]
) -> dict[str, Any]:
    is_kept = fate == KEPT
    counts = Counter(fate.tolist())
    if not is_kept.any():
        fates = ", ".join(f"{counts[number]} {REASONS[number]}" for number in sorted(counts))
        raise DataError(
            f"nothing is kept of {len(fate)} scored chunks ({fates or 'none was scored'}); raise "
            "keep, loosen the filters, or score more of the corpus"
        )
    sources: list[str] = corpus.about["sources"]
    by_source = {
        name: {
            "chunks": int((scored.source == number).sum()),
            "kept": int((is_kept & (scored.source == number)).sum()),
        }
        for number, name in enumerate(sources)
    }
    return {
        "data": config.data,
        "method": config.method,
        "chunks": len(fate),
        "kept": int(is_kept.sum()),
        "kept_tokens": int(scored.tokens[is_kept].sum()),
        "tokens": int(scored.tokens.sum()),
        "fates": {REASONS[number]: counts[number] for number in sorted(counts)},
        "sources": by_source,
        "cut": float(scored.score[is_kept].min()),
        "mean_score": {
            "kept": float(scored.score[is_kept].mean()),
            "all": float(np.nanmean(scored.score)),
        },
    }
