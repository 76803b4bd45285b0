"""How a recipe names a model. Imports no torch.

A reference is a word or a small table:
    "teacher"                                   the model another step of the recipe makes
    "models/minilm"                             a folder (relative to the recipe)
    "demo:minilm-l6"                            weights that come with a package
    "sentence-transformers/all-MiniLM-L6-v2"    a hub id
    { from = "teacher", keep_blocks = [1, 3] }  another model with fewer blocks, narrower, or with a
                                                new head: `ChangedModel`
    { config = { model_type = "bert", … } }     random weights from a Hugging Face config
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from attar.config import Config


class ChangedModel(Config):
    """A model made of another one's weights: some of its blocks, a narrower cut of it, or all of it
    under a new head; any of them together, at least one."""

    source: str = Field(alias="from")
    """A step, folder, hub id or demo model."""
    keep_blocks: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Which blocks to keep, counted from 0, in rising order; None: all."""
    hidden_size: int | None = Field(default=None, gt=0)
    """Keep so many of the hidden dimensions, the same ones everywhere; None: all."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Keep so many neurons in each feed-forward; None: all."""
    num_attention_heads: int | None = Field(default=None, gt=0)
    """Keep so many heads in each attention; None: all."""
    new_head: bool = False
    """Leave the classification head out and draw a new one: other classes may then be learned."""

    @property
    def is_narrower(self) -> bool:
        """Whether anything but the number of blocks is cut."""
        return any((self.hidden_size, self.intermediate_size, self.num_attention_heads))

    @model_validator(mode="after")
    def _blocks_rise(self) -> ChangedModel:
        blocks = self.keep_blocks
        if blocks is not None and (list(blocks) != sorted(set(blocks)) or blocks[0] < 0):
            raise ValueError(
                "keep_blocks must be distinct block numbers from 0 in rising order, "
                f"got {list(blocks)}"
            )
        return self

    @model_validator(mode="after")
    def _something_changes(self) -> ChangedModel:
        if self.keep_blocks is None and not self.is_narrower and not self.new_head:
            raise ValueError(
                f"{{ from = {self.source!r} }} changes nothing; give keep_blocks, hidden_size, "
                "intermediate_size, num_attention_heads or new_head = true, or write "
                f"model = {self.source!r}"
            )
        return self


class FromConfig(Config):
    """Random weights in the shape of a Hugging Face config."""

    config: dict[str, Any]
    """`model_type` and the fields of its transformers config class."""
    tokenizer: str | None = None
    """Folder, hub id or demo model whose tokenizer is used; needed to train on text."""


def _form_of(reference: object) -> str:
    if isinstance(reference, (ChangedModel, dict)) and not (
        isinstance(reference, dict) and "config" in reference
    ):
        return "from"
    return "config" if isinstance(reference, (FromConfig, dict)) else "word"


ModelReference = Annotated[
    Annotated[str, Tag("word")]
    | Annotated[ChangedModel, Tag("from")]
    | Annotated[FromConfig, Tag("config")],
    Discriminator(_form_of),
]
"""Told apart by form, so that a mistake in one form is not reported against the others."""


def referenced_model(reference: ModelReference) -> str | None:
    """The word inside a reference that may be a step's name; None for a model made from a
    config."""
    if isinstance(reference, FromConfig):
        return None
    return reference if isinstance(reference, str) else reference.source
