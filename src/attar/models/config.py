"""How a recipe names a model. Imports no torch.

A reference is a word or a small table:
    "teacher"                                   the model another step of the recipe makes
    "models/minilm"                             a folder (relative to the recipe)
    "demo:minilm-l6"                            weights that come with a package
    "sentence-transformers/all-MiniLM-L6-v2"    a hub id
    { from = "teacher", keep_blocks = [1, 3] }  some blocks of another model
    { config = { model_type = "bert", … } }     random weights from a Hugging Face config
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from attar.config import Config


class KeptBlocks(Config):
    """A smaller model made of whole blocks of a bigger one, embeddings, final norm and head
    included."""

    source: str = Field(alias="from")
    """A step, folder, hub id or demo model."""
    keep_blocks: tuple[int, ...] = Field(min_length=1)
    """Which blocks to keep, counted from 0, in rising order."""

    @model_validator(mode="after")
    def _blocks_rise(self) -> KeptBlocks:
        if list(self.keep_blocks) != sorted(set(self.keep_blocks)) or self.keep_blocks[0] < 0:
            raise ValueError(
                "keep_blocks must be distinct block numbers from 0 in rising order, "
                f"got {list(self.keep_blocks)}"
            )
        return self


class FromConfig(Config):
    """Random weights in the shape of a Hugging Face config."""

    config: dict[str, Any]
    """`model_type` and the fields of its transformers config class."""
    tokenizer: str | None = None
    """Folder, hub id or demo model whose tokenizer is used; needed to train on text."""


def _form_of(reference: object) -> str:
    if isinstance(reference, (KeptBlocks, dict)) and not (
        isinstance(reference, dict) and "config" in reference
    ):
        return "from"
    return "config" if isinstance(reference, (FromConfig, dict)) else "word"


ModelReference = Annotated[
    Annotated[str, Tag("word")]
    | Annotated[KeptBlocks, Tag("from")]
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
