"""The head of a model that does not exist yet, and what the model costs under it."""

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
    """What stands on top of a model."""

    num_labels: int | None
    """Width of a classifier's; None: words are predicted, or vectors are made."""
    words: Kind | None = None
    """For what words are predicted."""
    embedding: Embedding | None = None
    """How vectors are made, without a head."""
    kind: Kind | None = None
    """What a classifier's head answers; None: classes of texts, or a number."""


def cost_under(head: Head | None, config: Mapping[str, Any]) -> Cost:
    """Cost of a config's model under a head; None: under the one that its `architectures` name.

    Raises:
        ModelError: the config is not of a known model, or its model has no such head.
    """
    if head is None:
        return cost_from_config(config)
    if head.words is None:
        return cost_from_config(config, head.num_labels, head.embedding, kind=head.kind)
    writes = Generation() if head.words.writes else None
    task = Task(objective=head.words.name, max_length=1, input_names=(), generation=writes)
    found = class_of(config_of(config, "config", task), "config", task)
    return cost_from_config({**config, "architectures": [found.__name__]})
