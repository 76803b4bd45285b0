"""Selections from a corpus: distribution of scores, share of each source, diversity, and example
chunks.

The size of the page is bounded for any corpus: counts are binned, texts are sampled, small sources
are combined, and only the first selections have texts and a slider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.escaping import for_reading
from attar.report.quantities import DASH, number_text, share_text
from attar.report.reading import Made, number, table

MOST_EXPLORED = 8
"""Maximum number of selections with a slider and texts, which keeps the page below 3 MiB."""
OTHERS, NO_NAME = "other sources", "(no name)"
FACTS = (
    ("method", "method"),
    ("chunks", "chunks scored"),
    ("tokens", "tokens scored"),
)
UNSCORED = "could not be scored"
PLACES = {
    "best kept": "Highest scores: from the top 1 %",
    "kept, at the cut": "Just kept: next to the cut",
    "rejected, at the cut": "Just rejected: next to the cut",
    "middle": "Middle: the 1 % around the median",
    "worst": "Lowest scores: from the bottom 1 % of the rejected",
    "trimmed": "Trimmed: among the highest scores",
    "near duplicate": "Near duplicates, each with the earlier chunk that it repeats",
}
"""Place of an example chunk → its name on the page."""
SAMPLES = {
    "all": "all scored chunks",
    "kept": "kept chunks",
    "random": "equally many scored chunks, drawn at random",
}


@dataclass(frozen=True)
class SourceRow:
    """One source of the corpus, or several together."""

    name: str
    chunks: int
    kept: int
    tokens: int
    kept_tokens: int


@dataclass(frozen=True)
class Likelihood:
    """Log-probability of a chunk by one model."""

    model: str
    log_p: float
    """Mean log-probability per token, in nats."""
    log_p_of_byte: float
    """Mean log-probability per byte of the chunk, in nats."""


@dataclass(frozen=True)
class ReadChunk:
    source: str
    tokens: int
    score: float
    by: tuple[Likelihood, ...]
    """Log-probabilities by both models; empty if a proxy predicted the score."""
    text: str
    repeats: str = ""
    """For a near duplicate, the text that it repeats."""
    similarity: float | None = None


@dataclass(frozen=True)
class ReadPlace:
    """Chunks drawn from one place."""

    title: str
    of: int
    """Number of chunks at this place."""
    chunks: tuple[ReadChunk, ...]


@dataclass(frozen=True)
class Sampled:
    """The Vendi score of one sample."""

    sample: str
    chunks: int
    vendi: str
    interval: str


@dataclass(frozen=True)
class Selected:
    name: str
    is_explored: bool
    """Whether it has a slider and texts."""
    facts: tuple[tuple[str, Any], ...]
    keep: float
    own_shares: bool
    """Whether some sources have their own share."""
    fates: Mapping[str, int]
    cut: float | None
    sources: tuple[SourceRow, ...]
    places: tuple[ReadPlace, ...]
    diversity: tuple[Sampled, ...]
    encoder: str
    """The encoder used for `diversity`."""

    @property
    def total(self) -> SourceRow:
        return _summed("all", self.sources)


def selections(made: Sequence[Made]) -> tuple[Selected, ...]:
    steps = [step for step in made if step.run == "select"]
    by_name = {step.name: step for step in made}
    return tuple(
        _selected(step, place < MOST_EXPLORED, tuple(_proxy_facts(step, by_name)))
        for place, step in enumerate(steps)
    )


def _selected(step: Made, is_explored: bool, proxy_facts: tuple[tuple[str, Any], ...]) -> Selected:
    figures, diversity = step.metrics, table(step.metrics.get("diversity"))
    fates = {str(reason): int(count) for reason, count in table(figures.get("fates")).items()}
    facts = [(words, figures[fact]) for fact, words in FACTS if figures.get(fact) is not None]
    facts += [(UNSCORED, count) for reason, count in fates.items() if reason == UNSCORED]
    facts += [("warning", str(warning)) for warning in figures.get("warnings") or ()]
    return Selected(
        name=step.name,
        is_explored=is_explored,
        facts=(*facts, *_duplicate_facts(figures), *proxy_facts),
        keep=number(figures.get("keep")) or 0.0,
        own_shares=bool(step.settings.get("keep_by_source")),
        fates=fates,
        cut=number(figures.get("cut")),
        sources=_sources(
            table(figures.get("sources")),
            [
                table(source).get("name")
                for source in table(step.explored.get("shares")).get("sources", ())
            ],
        ),
        places=tuple(_places(step.explored)) if is_explored else (),
        diversity=tuple(
            _sampled(words, table(diversity[sample]))
            for sample, words in SAMPLES.items()
            if sample in diversity
        ),
        encoder=str(diversity.get("model", "")),
    )


def _proxy_facts(step: Made, by_name: Mapping[str, Made]) -> Iterator[tuple[str, str]]:
    """For scores from a proxy, how well it ranks unseen chunks, and the cost that it saved."""
    scores = by_name.get(str(step.settings.get("scores")))
    if scores is None:
        return
    if proxy := by_name.get(str(scores.settings.get("model"))):
        found = table(proxy.metrics.get("spearman"))
        value, low, high = (number_text(number(found.get(e))) for e in ("value", "low", "high"))
        yield (
            "Spearman correlation of predicted and true scores",
            f"{value} ({low} to {high}) on {int(number(found.get('n')) or 0):,} held-out chunks",
        )
    if (share := number(table(scores.metrics.get("offline")).get("share_of_teacher"))) is not None:
        words = "FLOPs of scoring with the proxy, of the teacher's on every chunk"
        yield words, f"{100 * share:.3g} %"


def _duplicate_facts(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = table(figures.get("near_duplicates"))
    for which, chunks in (("all", "chunks"), ("kept", "kept")):
        count, of = number(found.get(which)), number(figures.get(chunks))
        if count is not None and of:
            yield f"near duplicates among {which} chunks", share_text(count, of)


def _sources(counts: Mapping[str, Any], shown: Sequence[str | None]) -> tuple[SourceRow, ...]:
    """One row per name in `shown`; None stands for all other sources."""
    unnamed = NO_NAME if len(counts) > 1 else "all"
    names = ("chunks", "kept", "tokens", "kept_tokens")
    rows = {
        source: SourceRow(
            for_reading(source) or unnamed, *(int(table(of).get(name, 0)) for name in names)
        )
        for source, of in counts.items()
    }
    others = [row for source, row in rows.items() if source not in shown]
    rest = _summed(OTHERS if shown else "all", others)
    return tuple(rest if name is None else rows[name] for name in shown or [None])


def _summed(name: str, rows: Sequence[SourceRow]) -> SourceRow:
    return SourceRow(
        name,
        sum(row.chunks for row in rows),
        sum(row.kept for row in rows),
        sum(row.tokens for row in rows),
        sum(row.kept_tokens for row in rows),
    )


def _places(explored: Mapping[str, Any]) -> Iterator[ReadPlace]:
    examples = [table(example) for example in explored.get("examples") or ()]
    for place, title in PLACES.items():
        found = [example for example in examples if example.get("place") == place]
        if found:
            yield ReadPlace(title, int(found[0].get("of", 0)), tuple(map(_chunk, found)))


def _chunk(example: Mapping[str, Any]) -> ReadChunk:
    tokens, size = int(example.get("tokens", 0)), int(example.get("bytes", 0)) or 1
    repeated, predicted = table(example.get("repeats")), number(example.get("predicted"))
    means = {model: number(example.get(model)) or 0.0 for model in ("teacher", "reference")}
    return ReadChunk(
        source=for_reading(str(example.get("source", ""))),
        tokens=tokens,
        score=means["teacher"] - means["reference"] if predicted is None else predicted,
        by=tuple(Likelihood(m, p, p * tokens / size) for m, p in means.items())
        if predicted is None
        else (),
        text=_text(example),
        repeats=_text(repeated) if repeated else "",
        similarity=number(repeated.get("similarity")),
    )


def _text(example: Mapping[str, Any]) -> str:
    text, length = str(example.get("text", "")), int(example.get("characters", 0))
    return for_reading(text) + (f"… ({length:,} characters)" if length > len(text) else "")


def _sampled(words: str, found: Mapping[str, Any]) -> Sampled:
    ends = found.get("ci95") or (None, None)
    return Sampled(
        sample=words,
        chunks=int(found.get("chunks", 0)),
        vendi=f"{number(found.get('vendi')) or 0:.1f}",
        interval=" to ".join(DASH if end is None else f"{end:.1f}" for end in ends),
    )
