"""`run = "select"`: choose the chunks to train on, by their scores.

Difference sampling (MiniPLM, arXiv 2410.17215): a chunk's score is its mean log-probability per
token under the teacher, minus that under the reference,

    r(x) = (log p_T(x) − log p_ref(x)) / |x|,

and the ⌊αN⌋ chunks with the highest scores are kept, in corpus order; ties go to the earlier chunk.
`gumbel` adds Gumbel noise of a temperature to the scores before the cut, which draws without
replacement in proportion to exp(r / temperature); `random` keeps a random sample; `proxy` uses the
scores that a small model predicts (`attar.selection.proxy`).

A high score can be misleading: for a chunk that repeats itself, because the teacher can copy and
the reference cannot (`trim` sets the highest scores aside), and for a near duplicate, which scores
like its original (`near_duplicates`). N includes what is set aside, so filters change which chunks
are kept, not how many.

Filters are applied in this order: no score, fewer than `minimum_tokens` tokens, the highest scores,
near duplicates. Near duplicates are searched among the remaining chunks, so a chunk is only set
aside if the earlier one that it repeats may be kept.

The selection is a view: row numbers of the corpus, from 0 over all its shards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attar.artifacts import disk_errors_explained, write_json
from attar.data.corpus.published import corpus_of
from attar.data.corpus.tensor_writer import TensorWriter
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import DIGEST_FILE, KEPT_FILE, REJECTED_FILE, CorpusView, kept_rows
from attar.errors import DataError, UsageError
from attar.numerics.selection import highest, share_of, spans
from attar.scoring.config import Diversity
from attar.scoring.diversity import scored_with_interval, text_embeddings
from attar.seeds import generator
from attar.selection.config import NearDuplicates, SelectMetrics, SelectStep
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
from attar.selection.scores import Scored, read_scored
from attar.step import StepContext

COUNTED = ("chunks", "kept", "tokens", "kept_tokens")
COMPARED = 1000
"""Chunks to compare between two checks for a stop request: about 0.1 s."""


def select(config: SelectStep, context: StepContext) -> SelectMetrics:
    """Write the kept rows, and the others with their scores and reasons."""
    corpus = corpus_of(context, config.data)
    sources: list[str] = corpus.about["sources"]
    folders = {name: context.inputs[step] for name, step in config.scored_by.items()}
    scored = read_scored(corpus, folders, context.name)
    seed = context.seed if config.seed is None else config.seed
    fate = _set_aside(config, scored)
    repeats = _repeats(config.duplicates, context, corpus, scored, fate)
    if repeats is not None and config.duplicates is not None and config.duplicates.filter:
        fate[repeats >= 0] = DUPLICATE
    keys = _keys(config, scored, seed)
    for group, share in _shares(config, sources, context.name):
        _keep(fate, keys, np.isin(np.arange(len(sources)), group)[scored.source], share)
    common = [n for n, source in enumerate(sources) if source not in config.keep_by_source]
    is_by_score = config.method in ("difference_sampling", "proxy")
    selection = Selection(scored, fate, keys, repeats, tuple(common), is_by_score)
    metrics = selection_metrics(config, sources, selection)
    if "teacher" in folders:
        metrics["nll"] = scored.nll()
        if swapped := _looks_swapped(metrics["nll"]):
            context.progress.warn(f"{context.name}: {swapped}")
            metrics["warnings"] = [swapped]
    if config.diversity is not None:
        metrics["diversity"] = diversity(config.diversity, context, corpus, selection, seed)
    _write(context.folder, scored, fate)
    # not kept in memory: the pages read from a memory map count as memory
    digest = CorpusView(corpus, kept=kept_rows(context.folder)).digest()
    write_json(context.folder / DIGEST_FILE, digest)

    def read(rows: NDArray[np.int64]) -> Iterator[str]:
        return CorpusView(corpus, kept=rows).all_texts()

    write_explored(context.folder, sources, selection, read, seed)
    return metrics


def _looks_swapped(nll: Mapping[str, float]) -> str | None:
    """A warning if the teacher predicts the text worse than the reference."""
    if nll["teacher"] <= nll["reference"]:
        return None
    return (
        f"the teacher predicts this text worse than the reference ({nll['teacher']:.2f} against "
        f"{nll['reference']:.2f} nats per token); are they swapped?"
    )


def _repeats(
    config: NearDuplicates | None,
    context: StepContext,
    corpus: Corpus,
    scored: Scored,
    fate: NDArray[np.uint8],
) -> NDArray[np.int64] | None:
    """For each scored chunk, the index of the chunk it nearly repeats, or −1; None: not requested.

    Only chunks that are not set aside are compared: the others cannot be originals.
    """
    if config is None:
        return None
    compared = np.flatnonzero(fate == BELOW)
    texts = CorpusView(corpus, kept=scored.rows()[compared]).all_texts()
    repeats, title = np.full(len(scored), -1, np.int64), f"  {context.name}: near duplicates"
    with context.progress.task(title, len(compared)) as task:
        for number, first in enumerate(near_duplicates(texts, config.threshold)):
            if number % COMPARED == 0:
                context.stop_if_asked("a selection")
                task.advance(min(COMPARED, len(compared) - number))
            if first is not None:
                repeats[compared[number]] = compared[first]
    return repeats


def _set_aside(config: SelectStep, scored: Scored) -> NDArray[np.uint8]:
    """Mark the chunks that cannot be kept, even if they repeat nothing."""
    fate = np.full(len(scored), BELOW, np.uint8)
    for span in spans(len(fate)):
        part = fate[span]
        part[scored.tokens[span] < config.minimum_tokens] = SHORT
        part[~np.isfinite(scored.score[span])] = UNSCORED
    is_scored = fate != UNSCORED
    count = min(share_of(config.trim, len(fate)), int(np.count_nonzero(is_scored)))
    scores = scored.score
    for found in highest(len(fate), lambda part: scores[part], lambda part: is_scored[part], count):
        fate[found[fate[found] == BELOW]] = TRIMMED
    return fate


def _keys(config: SelectStep, scored: Scored, seed: int) -> NDArray[np.float32]:
    """Sort keys, to be compared with the cut."""
    draw = np.random.default_rng(np.random.SeedSequence((seed, len(scored))))
    if config.method == "random":
        return draw.random(len(scored), np.float32)
    if config.method == "gumbel":
        keys = scored.score.copy()
        for span in spans(len(keys)):
            noise = draw.gumbel(size=span.stop - span.start)
            keys[span] = keys[span] + config.temperature * noise
        return keys
    return scored.score


def _shares(config: SelectStep, sources: list[str], step: str) -> Iterator[tuple[list[int], float]]:
    """Groups of sources, by number, each with the share to keep."""
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
    fate: NDArray[np.uint8], keys: NDArray[np.float32], is_member: NDArray[np.bool_], share: float
) -> None:
    """Keep the ⌊share · N⌋ best of N members, or fewer if not enough can be kept."""

    def is_free(span: slice) -> NDArray[np.bool_]:
        return is_member[span] & (fate[span] == BELOW)

    free = sum(int(np.count_nonzero(is_free(span))) for span in spans(len(fate)))
    count = min(share_of(share, int(np.count_nonzero(is_member))), free)
    for found in highest(len(fate), lambda part: keys[part], is_free, count):
        fate[found] = KEPT


def _write(folder: Path, scored: Scored, fate: NDArray[np.uint8]) -> None:
    """Write both files shard by shard, with as many rows at a time as a shard has."""
    reasons = pa.dictionary(pa.int8(), pa.string())
    with disk_errors_explained(folder), ExitStack() as files:
        kept = rejected = None
        for span, details in scored.parts():
            is_kept, columns = fate[span] == KEPT, {"row": details.row, **details.by}
            if kept is None or rejected is None:
                types = {name: values.dtype for name, values in columns.items()}
                count = int(np.count_nonzero(fate == KEPT))
                kept = files.enter_context(TensorWriter(folder / KEPT_FILE, types, count))
                schema = [(name, pa.from_numpy_dtype(kind)) for name, kind in types.items()]
                rejected = files.enter_context(
                    pq.ParquetWriter(
                        folder / REJECTED_FILE,
                        pa.schema([*schema, ("reason", reasons)]),
                        compression="zstd",
                        use_dictionary=cast("Any", ["reason"]),  # numbers rarely repeat
                    )
                )
            kept.write({name: values[is_kept] for name, values in columns.items()})
            if not is_kept.all():
                reason = pa.DictionaryArray.from_arrays(
                    pa.array(fate[span][~is_kept], pa.int8()), pa.array(REASONS)
                )
                others = {name: values[~is_kept] for name, values in columns.items()}
                rejected.write_table(pa.table({**others, "reason": reason}))


def selection_metrics(
    config: SelectStep, sources: list[str], selection: Selection
) -> SelectMetrics:
    """The metrics of a selection.

    Raises:
        DataError: nothing is kept.
    """
    scored, fate = selection.scored, selection.fate
    counts = np.zeros(len(REASONS), np.int64)
    for span in spans(len(fate)):  # bincount converts each byte to 8 bytes
        counts += np.bincount(fate[span], minlength=len(REASONS))
    fates = {reason: n for reason, n in zip(REASONS, counts.tolist(), strict=True) if n}
    if not fates.get(REASONS[KEPT]):
        listed = ", ".join(f"{count} {reason}" for reason, count in fates.items())
        raise DataError(
            f"nothing is kept of {len(fate)} scored chunks ({listed or 'none was scored'}); raise "
            "keep, relax the filters, or score more of the corpus"
        )
    by_source, lowest, sums = _counted(sources, scored, fate)
    totals = {name: sum(row[name] for row in by_source.values()) for name in COUNTED}
    mean_score = {
        "kept": sums["kept"] / totals["kept"],
        "all": sums["all"] / (len(fate) - fates.get(REASONS[UNSCORED], 0)),
    }
    about = {"data": config.data, "method": config.method, "keep": config.keep, **totals}
    about |= {"fates": fates, "sources": by_source, "cut": lowest, "mean_score": mean_score}
    metrics = cast(SelectMetrics, about)
    if selection.repeats is not None:
        found = selection.repeats >= 0
        kept = found[fate == KEPT]
        metrics["near_duplicates"] = {"all": int(found.sum()), "kept": int(kept.sum())}
    return metrics


def _counted(
    sources: list[str], scored: Scored, fate: NDArray[np.uint8]
) -> tuple[dict[str, dict[str, int]], float, dict[str, float]]:
    """Chunks and tokens of each source; the lowest kept score; sums of scores."""
    counts = np.zeros((len(COUNTED), len(sources)))  # float64 is exact up to 2⁵³ tokens
    lowest, sums = math.inf, {"kept": 0.0, "all": 0.0}
    for span in spans(len(fate)):
        source, tokens, score = scored.source[span], scored.tokens[span], scored.score[span]
        is_kept = fate[span] == KEPT
        for row, weights in zip(counts, (None, is_kept, tokens, tokens * is_kept), strict=True):
            row += np.bincount(source, weights, len(sources))
        lowest = min(lowest, float(score[is_kept].min(initial=math.inf)))
        sums["kept"] += float(score[is_kept].sum(dtype=np.float64))
        sums["all"] += float(np.nansum(score, dtype=np.float64))
    rows = counts.T.astype(np.int64).tolist()
    by_source: dict[str, dict[str, int]] = {
        source: dict(zip(COUNTED, row, strict=True))
        for source, row in zip(sources, rows, strict=True)
    }
    return by_source, lowest, sums


def diversity(
    config: Diversity, context: StepContext, corpus: Corpus, selection: Selection, seed: int
) -> dict[str, Any]:
    """Vendi scores of samples of the same size: from all scored chunks, from the kept ones, and, if
    fewer are kept than a sample needs, a random sample of that smaller size from all. Raises as
    `text_embeddings`.
    """
    samples = _samples(config.chunks, selection.fate == KEPT, seed)
    wanted = np.unique(np.concatenate(list(samples.values())))
    sampled = CorpusView(corpus, kept=selection.scored.details(wanted).row)
    embeddings = text_embeddings(config, context, list(sampled.all_texts()))
    scores = {
        name: scored_with_interval(embeddings[np.searchsorted(wanted, sample)])
        for name, sample in samples.items()
    }
    return {"model": config.model, "max_length": config.max_length, **scores}


def _samples(most: int, is_kept: NDArray[np.bool_], seed: int) -> dict[str, NDArray[np.int64]]:
    """Indices of the sampled chunks; `all` and `random` are disjoint if there are enough chunks."""
    order = generator(seed, "diversity").permutation(len(is_kept))
    kept = order[is_kept[order]][:most]
    return {"all": order[:most], "kept": kept, "random": order[::-1][: len(kept)]}
