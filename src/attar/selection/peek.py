"""Show chunks of a corpus or a selection, with their scores. Imports no torch.

A corpus has no scores, so its chunks are shown in order or at random. For a selection the kept
chunks are shown and, if requested, the other scored ones with their reasons.

Memory: for a selection, a few numbers for every scored chunk; and the texts that are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attar.artifacts import require_unchanged
from attar.data.corpus.published import Published, open_published
from attar.data.corpus.token_store import PARTS, Corpus
from attar.data.corpus.view import REJECTED_FILE, CorpusView, kept_columns
from attar.errors import ArtifactError, UsageError, did_you_mean
from attar.escaping import for_terminal
from attar.numerics.selection import are_rows
from attar.selection.scores import PREDICTED, score_of
from attar.untrusted import checked

Order = Literal["first", "random", "best", "worst"]
KEPT = "kept"
SCORES = ("teacher", "reference", PREDICTED)
"""Scores that a selection stores for a chunk, in nats per token."""
SEED = 0
"""Seed of a random choice, fixed so that it can be repeated."""
MOST_LINES, MOST_CHARACTERS = 12, 800
"""Maximum length of a text on a terminal."""


@dataclass(frozen=True)
class Peek:
    row: int
    """Row in the corpus."""
    source: str
    part: str
    tokens: int
    text: str
    scores: Mapping[str, float]
    """Nats per token, by teacher, reference or predicted; empty for a corpus."""
    fate: str | None
    """"kept", or the reason why not; None for a corpus."""

    @property
    def score(self) -> float | None:
        """The score that the selection uses."""
        return score_of(self.scores) if self.scores else None

    def as_json(self) -> dict[str, Any]:
        scores = {name: _number(value) for name, value in self.scores.items()}
        about = {"row": self.row, "source": self.source, "part": self.part, "tokens": self.tokens}
        if self.fate is not None:
            about |= {"fate": self.fate, "score": _number(self.score), **scores}
        return {**about, "text": self.text}

    def lines(self) -> str:
        """Text for a terminal: a heading, and the beginning of the chunk."""
        facts = [f"chunk {self.row:,}", f"source {self.source or 'none'}", f"{self.tokens} tokens"]
        if self.score is None:
            facts.append(self.part)
        else:
            by = " ".join(f"{name} {value:.3f}" for name, value in self.scores.items())
            facts += [f"score {self.score:+.3f} ({by}; nats per token)", str(self.fate)]
        shown = self.text[:MOST_CHARACTERS].splitlines()[:MOST_LINES]
        is_cut = len("\n".join(shown)) < len(self.text.rstrip("\n"))
        lines = [for_terminal(" · ".join(facts)), *(f"  {for_terminal(line)}" for line in shown)]
        return "\n".join([*lines, "  …"] if is_cut else lines)


def peek(
    folder: Path,
    order: Order = "first",
    count: int = 5,
    source: str | None = None,
    corpus: str | None = None,
    *,
    every_fate: bool = False,
) -> list[Peek]:
    """Read some chunks of a corpus or a selection.

    Args:
        order: first, random, or by score: best or worst.
        source: only chunks of this source.
        corpus: folder of a selection's corpus; None: as recorded in the selection.
        every_fate: for a selection, include chunks that were not kept.

    Raises:
        UsageError: a corpus has no scores to sort by, or there is no such source.
        ArtifactError, DataError: the folder is not a corpus or a selection, or is damaged.
    """
    found = open_published(folder, Path(), corpus)
    if not found.is_selection and order in ("best", "worst"):
        raise UsageError(
            f"{folder} is a corpus, whose chunks have no scores to sort by; name the folder of a "
            "select step, or use --random"
        )
    sources: list[str] = found.corpus.about["sources"]
    if source is not None and source not in sources:
        raise UsageError(
            f"{folder} has no source {source!r}{did_you_mean(source, sources)}; it has "
            f"{', '.join(map(repr, sources))}"
        )
    chunks = _scored(found) if found.is_selection else _Chunks(np.arange(len(found.corpus)))
    if chunks.fate is not None and not every_fate:
        chunks = chunks.take(np.flatnonzero(chunks.fate == KEPT))
    if source is not None:
        numbers = _of_rows(found.corpus, chunks.row, "source")
        chunks = chunks.take(np.flatnonzero(numbers == sources.index(source)))
    chunks = chunks.take(_chosen(chunks, order, count))
    view = CorpusView(found.corpus)
    each = zip(
        chunks.row.tolist(),
        _of_rows(found.corpus, chunks.row, "source"),
        _of_rows(found.corpus, chunks.row, "part"),
        view.lengths(chunks.row).tolist(),
        view.texts(chunks.row),
        strict=True,
    )
    return [
        Peek(
            row=row,
            source=sources[number],
            part=PARTS[part],
            tokens=tokens,
            text=text,
            scores={name: float(values[place]) for name, values in chunks.by.items()},
            fate=None if chunks.fate is None else str(chunks.fate[place]),
        )
        for place, (row, number, part, tokens, text) in enumerate(each)
    ]


@dataclass(frozen=True)
class _Chunks:
    """Chunks to choose from; arrays (N,)."""

    row: NDArray[np.int64]
    by: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    fate: NDArray[Any] | None = None

    def take(self, places: NDArray[np.int64]) -> _Chunks:
        by = {name: values[places] for name, values in self.by.items()}
        return _Chunks(self.row[places], by, None if self.fate is None else self.fate[places])

    @property
    def score(self) -> NDArray[np.float32]:
        return score_of(self.by)


def _scored(found: Published) -> _Chunks:
    """All chunks considered by a selection, in corpus order."""
    kept = kept_columns(found.folder)
    file = found.folder / REJECTED_FILE
    require_unchanged(found.folder, found.result, (REJECTED_FILE,))
    try:
        types = {name: pa.from_numpy_dtype(kept[name].dtype) for name in kept}
        schema = pa.schema({**types, "reason": pa.string()})
        rejected = pq.read_table(checked(file), schema=schema)
        rejected.validate(full=True)
        joined = {name: np.concatenate([kept[name], rejected[name].to_numpy()]) for name in kept}
        reasons = rejected["reason"].to_numpy()
        if not are_rows(np.sort(joined["row"]), len(found.corpus)):
            raise ValueError("its rows and the kept ones are not rows of the corpus")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ArtifactError(
            f"{file} cannot be read ({error}); remove {found.folder} and run the step "
            f"{found.result.step!r} again"
        ) from error
    fate = np.concatenate([np.full(len(kept["row"]), KEPT, object), reasons])
    by = {name: joined[name] for name in SCORES if name in joined}
    return _Chunks(joined["row"], by, fate).take(np.argsort(joined["row"]))


def _of_rows(corpus: Corpus, rows: NDArray[np.int64], array: str) -> NDArray[Any]:
    """An array of the shards, at some rows of the corpus."""
    found, begin = np.zeros(len(rows), np.int64), 0
    for shard in corpus.shards:
        inside = (rows >= begin) & (rows < begin + len(shard))
        found[inside] = getattr(shard, array)[rows[inside] - begin]
        begin += len(shard)
    return found


def _chosen(chunks: _Chunks, order: Order, count: int) -> NDArray[np.int64]:
    """Places of the chunks to show. Chunks without a score are neither best nor worst."""
    total = len(chunks.row)
    if order == "first":
        return np.arange(min(count, total))
    if order == "random":
        draw = np.random.default_rng(SEED)
        return np.sort(draw.choice(total, min(count, total), replace=False))
    scored = np.flatnonzero(np.isfinite(chunks.score))
    ranked = scored[np.argsort(-chunks.score[scored], kind="stable")]
    return ranked[:count] if order == "best" else ranked[::-1][:count]


def _number(value: float | None) -> float | None:
    """Replace NaN, which JSON does not support, by None."""
    return None if value is None or math.isnan(value) else value
