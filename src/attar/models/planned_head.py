"""The head of a model that does not exist yet, and the model's cost with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attar.models.architecture import class_of, config_of
from attar.models.cost import Cost, cost_from_config
from attar.tasks.embedding import Embedding
from attar.tasks.table import Kind
from attar.tasks.task import Generation, Task


@dataclass(frozen=True)
class Head:
    """The head on top of a model."""

    num_labels: int | None
    """Number of outputs of a classification head; None: a language head, or an embedding model."""
    words: Kind | None = None
    """Task of a language head."""
    embedding: Embedding | None = None
    """Settings of an embedding model, which has no head."""
    kind: Kind | None = None
    """Task of a classification head; None: classification of texts, or regression."""


def cost_under(head: Head | None, config: Mapping[str, Any]) -> Cost:
    """Cost of a config's model with a head; None: with the head in its `architectures`.

    Raises:
        ModelError: the config's model is not supported, or has no such head.
    """
    if head is None:
        return cost_from_config(config)
    if head.words is None:
        return cost_from_config(config, head.num_labels, head.embedding, kind=head.kind)
    writes = Generation() if head.words.writes else None
    task = Task(objective=head.words.name, max_length=1, input_names=(), generation=writes)
    found = class_of(config_of(config, "config", task), "config", task)
    return cost_from_config({**config, "architectures": [found.__name__]})
