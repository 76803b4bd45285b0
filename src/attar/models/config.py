"""How a recipe refers to a model. Imports no torch.

A reference is a string or a small table:

    "teacher"                                   the model that another step of the recipe makes
    "models/minilm"                             a folder (relative to the recipe)
    "demo:minilm-l6"                            weights that come with a package
    "sentence-transformers/all-MiniLM-L6-v2"    a hub id
    { from = "teacher", keep_blocks = [1, 3] }  another model with fewer blocks, narrower, or with a
                                                new head: `ChangedModel`
    { config = { model_type = "bert", … } }     random weights from a Hugging Face config
    { size = "nano", family = "llama" }         random weights, in a size from `named_sizes`
    { …, ffn = "3w", ffn_expansion = 1.5 }      any of these tables, with simpler feed-forwards
    { from = "teacher", static_width = 256 }    one vector per token, computed from the encoder
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from attar.config import Config
from attar.errors import did_you_mean
from attar.models.ffn_variants import FIELD, VARIANTS, FfnSettings, VariantName
from attar.models.named_sizes import FAMILIES_OF_SIZES, config_of_size

STATIC_TYPE = "static"
"""The model_type of a static embedding table (`attar.models.families.static`)."""


class _WithFfn(Config):
    """A model whose feed-forwards can be replaced by simpler ones."""

    ffn: VariantName | None = None
    """Replace every feed-forward by nothing (skip), by one to three linear maps (1w, 2w, 3w), or by
    a map merged with attention's output (merged); see the method card ffn_variants. None: keep the
    family's own."""
    ffn_expansion: float | None = Field(default=None, gt=0, le=64)
    """Inner width of `2w` and `3w`, as a multiple of the hidden size; None: the family's own
    intermediate size."""

    @property
    def ffn_settings(self) -> FfnSettings | None:
        """The feed-forward settings as stored in the model's config; None: unchanged."""
        if self.ffn is None:
            return None
        return FfnSettings(variant=self.ffn, expansion=self.ffn_expansion)

    @model_validator(mode="after")
    def _expansion_has_a_width(self) -> Self:
        if self.ffn_expansion is not None and (self.ffn is None or VARIANTS[self.ffn].maps < 2):
            wide = [name for name, variant in VARIANTS.items() if variant.maps > 1]
            raise ValueError(
                f"ffn_expansion = {self.ffn_expansion:g} is the inner width of ffn = "
                f"{' or '.join(wide)}, and ffn is {self.ffn}; leave it out"
            )
        return self


class ChangedModel(_WithFfn):
    """A model made from another model's weights: fewer blocks, smaller dimensions, simpler
    feed-forwards, or a new head. The changes can be combined; at least one is needed."""

    source: str = Field(alias="from")
    """A step, folder, hub id or demo model."""
    keep_blocks: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Blocks to keep, numbered from 0, in increasing order; None: all."""
    hidden_size: int | None = Field(default=None, gt=0)
    """Number of hidden dimensions to keep, the same in every layer; None: all."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Number of neurons to keep in each feed-forward; None: all."""
    num_attention_heads: int | None = Field(default=None, gt=0)
    """Number of attention heads to keep in each layer; None: all."""
    new_head: bool = False
    """Replace the classification head with a new one, so that other classes can be learned."""
    static_width: int | None = Field(default=None, gt=0)
    """Replace an embedding encoder with a static table: one vector of this width per token,
    computed with the encoder; None: keep the encoder."""
    ffn_start: Literal["least_squares", "random"] | None = None
    """How new feed-forwards are initialized. least_squares: the linear map that best approximates
    the old feed-forward on texts from the step's data; the default where it is possible."""

    @property
    def fits_ffn(self) -> bool:
        """Whether the new linear maps are initialized by least squares."""
        can = self.ffn is not None and VARIANTS[self.ffn].is_linear_ffn
        return can and self.ffn_start != "random"

    @property
    def needs_texts(self) -> bool:
        """Whether making the model needs texts, for importance scores or a least-squares fit."""
        return self.is_narrower or self.fits_ffn

    @model_validator(mode="after")
    def _static_is_alone(self) -> Self:
        others = sorted(self.model_fields_set - {"source", "static_width"})
        if self.static_width is not None and others:
            raise ValueError(
                f"static_width replaces the whole encoder by a table, so {others[0]} has nothing "
                "to change; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        if self.ffn_start is not None and self.ffn is None:
            raise ValueError("ffn_start initializes ffn; set ffn, or remove ffn_start")
        if self.ffn_start == "least_squares" and not self.fits_ffn:
            able = [name for name, variant in VARIANTS.items() if variant.is_linear_ffn]
            raise ValueError(
                f"least squares fits a linear map, which ffn = "
                f'"{self.ffn}" is not; set ffn_start = "random", or use {", ".join(able)}'
            )
        return self

    @property
    def is_narrower(self) -> bool:
        """Whether any dimension other than the number of blocks is reduced."""
        return any((self.hidden_size, self.intermediate_size, self.num_attention_heads))

    @model_validator(mode="after")
    def _blocks_rise(self) -> ChangedModel:
        blocks = self.keep_blocks
        if blocks is not None and (list(blocks) != sorted(set(blocks)) or blocks[0] < 0):
            raise ValueError(
                "keep_blocks must be distinct block numbers from 0 in increasing order, got "
                f"{list(blocks)}"
            )
        return self

    @model_validator(mode="after")
    def _something_changes(self) -> ChangedModel:
        kept = self.keep_blocks is None and self.ffn is None and self.static_width is None
        if kept and not self.is_narrower and not self.new_head:
            raise ValueError(
                f"{{ from = {self.source!r} }} changes nothing; give keep_blocks, hidden_size, "
                "intermediate_size, num_attention_heads, ffn, static_width or new_head = true, or "
                f"write model = {self.source!r}"
            )
        return self


class FromConfig(_WithFfn):
    """Random weights, in the shape of a Hugging Face config or of a named size."""

    config: dict[str, Any] = Field(default_factory=dict)
    """`model_type` and fields of its transformers config class; with `size`, only the fields that
    differ. Without `vocab_size`, the vocabulary size and the end token are the tokenizer's."""
    size: str | None = None
    """A named size, such as nano or mini-32; needs `family`."""
    family: str | None = None
    """The model_type, such as llama or t5."""
    tokenizer: str
    """A step, folder, hub id or demo model whose tokenizer is used."""

    @field_validator("size", "family")
    @classmethod
    def _is_known(cls, name: str | None, info: ValidationInfo) -> str | None:
        sizes = dict.fromkeys(size for row in FAMILIES_OF_SIZES.values() for size in row.sizes)
        known = list(sizes if info.field_name == "size" else FAMILIES_OF_SIZES)
        if name is not None and name not in known:
            raise ValueError(_unknown(str(info.field_name), name, known))
        return name

    @model_validator(mode="after")
    def _family_has_the_size(self) -> Self:
        if self.size is not None and self.family is None:
            having = [name for name, row in FAMILIES_OF_SIZES.items() if self.size in row.sizes]
            raise ValueError(
                f'size = "{self.size}" needs a family; add family = "{having[0]}" '
                f"(or one of {', '.join(having)})"
            )
        if self.family is not None:
            known = list(FAMILIES_OF_SIZES[self.family].sizes)
            if self.size is None:
                raise ValueError(
                    f'family = "{self.family}" needs a size; add size = "nano" '
                    f"(or one of {', '.join(known)})"
                )
            if self.size not in known:
                raise ValueError(_unknown(f"size of {self.family}", self.size, known))
        if self.size is not None and "model_type" in self.config:
            raise ValueError(
                "a named size has its model_type from family; remove config.model_type"
            )
        return self

    def plain(self, vocab_size: int | None = None, end_id: int | None = None) -> dict[str, Any]:
        """The complete config, without instantiating a config class.

        Args:
            vocab_size, end_id: of the tokenizer; None: unknown, and left to the config class.
        """
        written = written_config(self.model_dump())
        if self.size is None and "vocab_size" in written:
            return written
        of_tokenizer = {"vocab_size": vocab_size, "bos_token_id": end_id, "eos_token_id": end_id}
        return {name: id for name, id in of_tokenizer.items() if id is not None} | written


def written_config(reference: Mapping[str, Any]) -> dict[str, Any]:
    """The config described by a reference table, not yet validated; empty if it describes none."""
    size, family, config = (reference.get(name) for name in ("size", "family", "config"))
    row = FAMILIES_OF_SIZES.get(family) if isinstance(family, str) else None
    is_known = row is not None and isinstance(size, str) and size in row.sizes
    shape = config_of_size(str(size), str(family)) if is_known else {}
    return shape | (dict(config) if isinstance(config, Mapping) else {}) | _ffn_field(reference)


def _ffn_field(reference: Mapping[str, Any]) -> dict[str, Any]:
    """The config field for the simpler feed-forwards that a reference table requests."""
    found = {"variant": reference.get("ffn"), "expansion": reference.get("ffn_expansion")}
    if found["variant"] not in VARIANTS:
        return {}
    return {FIELD: {name: value for name, value in found.items() if value is not None}}


def _unknown(what: str, name: str, known: list[str]) -> str:
    return f"{what} must be one of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}"


def _form_of(reference: object) -> str:
    if isinstance(reference, dict):
        return "config" if reference.keys() & {"config", "size", "family"} else "from"
    if isinstance(reference, ChangedModel):
        return "from"
    return "config" if isinstance(reference, FromConfig) else "word"


ModelReference = Annotated[
    Annotated[str, Tag("word")]
    | Annotated[ChangedModel, Tag("from")]
    | Annotated[FromConfig, Tag("config")],
    Discriminator(_form_of),
]
"""Discriminated by form, so that a mistake in one form is not reported for the others."""


def referenced_model(reference: ModelReference) -> str | None:
    """The string in a reference, which may be a step's name; None for a model made from a
    config."""
    if isinstance(reference, FromConfig):
        return None
    return reference if isinstance(reference, str) else reference.source
