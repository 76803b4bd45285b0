"""What a step refers to: words that name models and words that name data, each with its place in
the step's settings.

Every other part of the engine (relations, graph, keys, sweep) asks these few lines instead of
knowing each step's fields.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelWord:
    """A word that is a step's name, a folder, a hub id or a demo model."""

    place: str
    """Dotted place inside the step, such as "models.1"."""
    word: str
    makers: tuple[str, ...] = ("train", "quantize", "export")
    """Kinds of steps that make a model fit for this place."""


@dataclass(frozen=True)
class DataReference:
    """A word that must name a `[data.<name>]` table."""

    place: str
    name: str


@dataclass(frozen=True)
class References:
    """All references of one step, in the order of its settings."""

    models: tuple[ModelWord, ...] = ()
    data: tuple[DataReference, ...] = ()
