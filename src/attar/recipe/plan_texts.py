"""What a plan knows of texts and of what predicts from them: rows of a split, their mean length,
and the head above them.

    classes, a number      a row a text, as long as the tokenizer says        a classifier's head
    classes as words       the same                                           a language head
    a text for a text      the same                                           a language head
    running text           ceil(tokens of all documents / max_length)         a language head
                           blocks of max_length tokens

Lengths are those of some texts, evenly spread. Left out: what a template adds to a text, and how
long the texts to be written are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.artifacts import MIB
from attar.data.load import left_out, load_data
from attar.data.packing import token_blocks
from attar.data.tables import TextData
from attar.data.tokenize import TextEncoder
from attar.evaluation.glue import labelled_split
from attar.models.architecture import class_of, config_of, input_names_of
from attar.models.cost import Cost, cost_from_config
from attar.recipe.schema import Recipe
from attar.tasks.kind import Kind
from attar.tasks.table import KINDS
from attar.tasks.task import Generation, Task

SAMPLED_TEXTS = 512
"""Texts tokenized to know how long they are."""
WORD_TOKENS = 4
"""Of a word that names a class, end token included: as a rule the longest has no more."""
ONE_BLOCK = 1 << 40
"""A length that no documents reach."""


@dataclass(frozen=True)
class Head:
    """What stands on top of a model."""

    num_labels: int | None
    """Width of a classifier's; None: words are predicted."""
    words: Kind | None = None
    """For what words are predicted."""

    @property
    def predicts_words(self) -> bool:
        return self.words is not None


@dataclass(frozen=True)
class ModelPlan:
    """A model that does not exist yet: its cost, where its tokenizer is, and bytes a weight."""

    cost: Cost
    tokenizer_folder: Path
    bytes_per_param: float = 4.0
    max_length: int = 128

    @property
    def size_mib(self) -> float:
        return self.cost.num_params * self.bytes_per_param / MIB

    def activation_bytes(self, tokens: int) -> int:
        """Bytes kept for the backward pass of one text: about 16 tensors of the hidden size, 4 of
        the intermediate size, and 2 of tokens × tokens a head, in every block."""
        config: Any = self.cost.model.config  # has every family's sizes under these names
        wide = getattr(config, "intermediate_size", None) or getattr(config, "d_ff", None)
        per_token = 16 * config.hidden_size + 4 * (wide or 4 * config.hidden_size)
        heads = getattr(config, "num_attention_heads", 0)
        return 4 * tokens * config.num_hidden_layers * (per_token + 2 * heads * tokens)


class PlannedTexts:
    """The data of a recipe, each read once."""

    def __init__(self, recipe: Recipe, recipe_folder: Path) -> None:
        self._recipe, self._recipe_folder = recipe, recipe_folder
        self._data: dict[str, TextData] = {}
        self._made: dict[str, TextData] = {}

    def add(self, step: str, data: TextData) -> None:
        """What a step that makes rows will have made, with other texts in the place of those."""
        self._made[step] = data

    def loaded(self, data: str) -> TextData:
        """One data set by its name in the recipe."""
        if data in self._made:
            return self._made[data]
        if data not in self._data:
            config, seed = self._recipe.data[data], self._recipe.seed
            self._data[data] = load_data(config, self._recipe_folder, name=data, seed=seed)
        return self._data[data]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the steps will say about the data that was read for them."""
        return tuple(
            note for data in self._data.values() for note in (*data.notes, *left_out(data).values())
        )

    def count(self, data: str, split: str, model: ModelPlan) -> tuple[int, int]:
        """Rows of a split, and the mean number of tokens of a row (0, 1 if there is no such
        split).

        Raises:
            DataError, ModelError: documents that a step could not cut into blocks either.
        """
        texts = self.loaded(data)
        if split not in texts.splits:
            return 0, 1
        rows = texts.splits[split].texts
        sampled = rows[:: max(1, len(rows) // SAMPLED_TEXTS)]
        if texts.kind.is_running:
            blocks = token_blocks(model.tokenizer_folder, sampled, ONE_BLOCK, f"split {split!r}")
            total = round(len(blocks.encoded.ids) * len(rows) / len(sampled))
            # a last block of one token predicts nothing and is left out
            return math.ceil((total - 1) / model.max_length), min(total, model.max_length)
        names = input_names_of(model.cost.model.config)
        encoder = TextEncoder.from_folder(model.tokenizer_folder, model.max_length, names)
        return len(rows), max(1, round(float(encoder.encode(sampled).lengths.mean())))

    def judged(self, data: str, split: str, model: ModelPlan) -> tuple[int, int]:
        """The same of a split that models are judged by.

        Raises:
            DataError: there is no such split, or rows lack their label.
        """
        labelled_split(self.loaded(data), split)
        return self.count(data, split, model)

    def has_classes(self, data: str) -> bool:
        """Whether each row has one of some classes."""
        return self.loaded(data).kind.has_classes

    def head(self, data: str, objective: str | None = None) -> Head:
        """What a model for this data needs on top.

        Args:
            objective: of the step; text_to_text on data with classes names them by words.
        """
        texts = self.loaded(data)
        kind = KINDS[objective or texts.objective]
        return Head(None, kind) if kind.predicts_words else Head(len(texts.label_names) or 1)


def cost_under(head: Head | None, config: Mapping[str, Any]) -> Cost:
    """Cost of a config's model under a head; None: under the one that its `architectures` name.

    Raises:
        ModelError: the config is none that is known, or its model has no such head.
    """
    if head is None or head.words is None:
        return cost_from_config(config, None if head is None else head.num_labels)
    writes = Generation() if head.words.writes else None
    task = Task(objective=head.words.name, max_length=1, input_names=(), generation=writes)
    found = class_of(config_of(config, "config", task), "config", task)
    return cost_from_config({**config, "architectures": [found.__name__]})
