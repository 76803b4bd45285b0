"""Texts that a teacher wrote: how many and how long, how varied beside the original texts after
the same prompts, and a few to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.escaping import for_reading
from attar.report.quantities import DASH, number_text, share_text
from attar.report.reading import Made, number, table, tables

SIDES = ("written", "original")


@dataclass(frozen=True)
class Variety:
    """One measure of both sides."""

    name: str
    written: str
    original: str


@dataclass(frozen=True)
class Example:
    """One text, each part cut to its beginning (a prompt to its end)."""

    source: str
    tokens: int
    is_ended: bool
    prompt: str
    written: str
    original: str


@dataclass(frozen=True)
class Generated:
    name: str
    facts: tuple[tuple[str, Any], ...]
    compared: int
    """Texts that the varieties are of."""
    varieties: tuple[Variety, ...]
    examples: tuple[Example, ...]


def generated(made: Sequence[Made]) -> tuple[Generated, ...]:
    return tuple(_generated(step) for step in made if step.run == "generate")


def _generated(step: Made) -> Generated:
    found, distinct = step.metrics, table(step.metrics.get("distinct"))
    texts, new = number(found.get("texts")) or 0, number(found.get("new_tokens")) or 0
    facts = [
        ("teacher", str(step.settings.get("model", ""))),
        ("texts", texts),
        ("tokens of a prompt", number(found.get("prompt_tokens"))),
        ("new tokens per text, mean", new / texts if texts else None),
        ("ended by the teacher", share_text(number(found.get("ended")) or 0, texts)),
        ("chunks too short for a prompt", number(found.get("too_short")) or None),
    ]
    return Generated(
        name=step.name,
        facts=tuple((name, value) for name, value in facts if value not in (None, "")),
        compared=int(number(distinct.get("texts")) or 0),
        varieties=tuple(_varieties(distinct, table(found.get("diversity")))),
        examples=tuple(map(_example, tables(step.explored.get("texts")))),
    )


def _varieties(distinct: Mapping[str, Any], diversity: Mapping[str, Any]) -> Iterator[Variety]:
    written, original = (table(distinct.get(side)) for side in SIDES)
    for n in written:
        shares = (number(side.get(n)) for side in (written, original))
        yield Variety(
            f"distinct {n}-grams",
            *(DASH if share is None else share_text(share, 1) for share in shares),
        )
    scores = [number(table(diversity.get(side)).get("vendi")) for side in SIDES]
    if any(score is not None for score in scores):
        yield Variety("Vendi score", *map(number_text, scores))


def _example(found: Mapping[str, Any]) -> Example:
    parts = {name: table(found.get(name)) for name in ("prompt", *SIDES)}
    texts = {name: for_reading(str(part.get("text", ""))) for name, part in parts.items()}
    return Example(
        source=for_reading(str(found.get("source", ""))),
        tokens=int(number(found.get("tokens")) or 0),
        is_ended=found.get("is_ended") is True,
        **{name: text + _cut(parts[name], text, name) for name, text in texts.items()},
    )


def _cut(part: Mapping[str, Any], text: str, name: str) -> str:
    length = int(number(part.get("characters")) or 0)
    is_cut = name != "prompt" and length > len(str(part.get("text", "")))
    return f"… ({length:,} characters)" if is_cut else ""
