"""What was selected from a corpus, and chunks to read: the best, those at the cut, the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.quantities import metric_text
from attar.report.reading import Made, number, table


@dataclass(frozen=True)
class SourceRow:
    """One source of the corpus."""

    name: str
    chunks: int
    kept: int

    @property
    def share(self) -> str:
        return metric_text("accuracy", self.kept / self.chunks) if self.chunks else "–"


@dataclass(frozen=True)
class ReadChunk:
    """A chunk to read, with its mean log-probability a token under both models, in nats."""

    place: str
    score: float
    teacher: float
    reference: float
    text: str


@dataclass(frozen=True)
class Selected:
    """One select step."""

    name: str
    facts: tuple[tuple[str, Any], ...]
    sources: tuple[SourceRow, ...]
    chunks: tuple[ReadChunk, ...]


FACTS = (
    ("method", "method"),
    ("chunks", "chunks scored"),
    ("kept", "chunks kept"),
    ("kept_tokens", "tokens kept"),
    ("cut", "lowest score kept"),
)


def selections(made: Sequence[Made]) -> tuple[Selected, ...]:
    """Every select step, in the recipe's order."""
    return tuple(_selected(step) for step in made if step.run == "select")


def _selected(step: Made) -> Selected:
    figures = step.metrics
    facts = [(words, figures[fact]) for fact, words in FACTS if figures.get(fact) is not None]
    facts += [(reason, count) for reason, count in table(figures.get("fates")).items()]
    sources = [
        SourceRow(name or "all", int(counts.get("chunks", 0)), int(counts.get("kept", 0)))
        for name, counts in table(figures.get("sources")).items()
    ]
    return Selected(
        name=step.name,
        facts=tuple(fact for fact in facts if fact[0] != "kept"),
        sources=tuple(sorted(sources, key=lambda source: -source.chunks)),
        chunks=tuple(_chunk(table(example)) for example in step.examples),
    )


def _chunk(example: Mapping[str, Any]) -> ReadChunk:
    teacher, reference = (number(example.get(name)) or 0.0 for name in ("teacher", "reference"))
    return ReadChunk(
        place=str(example.get("place", "")),
        score=teacher - reference,
        teacher=teacher,
        reference=reference,
        text=str(example.get("text", "")),
    )
