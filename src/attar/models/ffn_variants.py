"""Simpler feed-forwards by name. Imports no torch.

    ffn(x) = W₂ act(W₁ x)   is replaced, in every block and with the residual kept, by

    skip            nothing; the block keeps its attention
    skip_encoder    the same, in the encoder only
    1w              W x
    1w_relu         relu(W x)
    2w              W₂ W₁ x
    3w              W₃ W₂ W₁ x, where W₂ is (F, F)
    merged          attention's output map O followed by one map, W O c, without the shortcut and
                    the norm between them; c is attention's context
    merged_skip     W h on h = x + O c: keeps the shortcut between them, but not the norm
    attention_only  the result of folding `merged`: no feed-forward, and no norm for one

A chain of maps without an activation is one linear map, so `2w` and `3w` can be trained with width
F and folded into `1w` afterwards. F is `expansion` times the hidden size, or the family's
intermediate size.

The variant is stored in the field `attar_ffn` of a model's config. No transformers class implements
it, so the file has a model_type that transformers does not know: AutoModel then rejects the folder
instead of initializing the missing maps at random.

Source: Lee, "Exploring the Limits of Small Language Models" (UCB/EECS-2023-141), figure 3.1;
`merged` is its future work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from attar.config import Config
from attar.errors import ModelError

FIELD = "attar_ffn"
"""Field of a model's config."""
FILE_PREFIX = "attar_"
"""Prefix of a variant's model_type, in `config.json` only."""

VariantName = Literal[
    "skip",
    "skip_encoder",
    "1w",
    "1w_relu",
    "2w",
    "3w",
    "merged",
    "merged_skip",
    "attention_only",
]
LostNorm = Literal["none", "own", "between"]
"""The norm that a variant drops: none, the feed-forward's own, or the one between attention and
feed-forward. In a pre-norm block the last two are the same."""


@dataclass(frozen=True)
class Variant:
    """A replacement for a feed-forward."""

    maps: int
    """Number of consecutive linear maps; 0: no feed-forward."""
    has_relu: bool = False
    encoder_only: bool = False
    lost_norm: LostNorm = "none"
    follows_attention: bool = False
    """Whether the maps directly follow attention's output map, as part of its branch."""
    folds_into: VariantName | None = None
    """The variant it can be folded into; None: it cannot be folded."""

    @property
    def is_linear_ffn(self) -> bool:
        """Whether it is a linear map of the feed-forward's input, so that it can be fitted by least
        squares.
        """
        is_own = not self.follows_attention and self.lost_norm == "none"
        return is_own and self.maps > 0 and not self.has_relu


VARIANTS: Mapping[VariantName, Variant] = {
    "skip": Variant(0),
    "skip_encoder": Variant(0, encoder_only=True),
    "1w": Variant(1),
    "1w_relu": Variant(1, has_relu=True),
    "2w": Variant(2, folds_into="1w"),
    "3w": Variant(3, folds_into="1w"),
    "merged": Variant(1, lost_norm="own", follows_attention=True, folds_into="attention_only"),
    "merged_skip": Variant(1, lost_norm="between"),
    "attention_only": Variant(0, lost_norm="own"),
}
NAMES: tuple[VariantName, ...] = get_args(VariantName)


class FfnSettings(Config):
    """The variant field of a model's config."""

    variant: VariantName
    expansion: float | None = Field(default=None, gt=0, le=64)
    """F / hidden size for `2w` and `3w`; None: the family's intermediate size."""

    @property
    def row(self) -> Variant:
        return VARIANTS[self.variant]

    def plain(self) -> dict[str, Any]:
        """As plain data for a config."""
        return self.model_dump(exclude_none=True)


def settings_in(config: Mapping[str, Any], where: str) -> FfnSettings | None:
    """The variant in a config; None: the family's own feed-forward.

    Raises:
        ModelError: an unknown variant.
    """
    found = config.get(FIELD)
    if found is None:
        return None
    try:
        return FfnSettings.model_validate(found)
    except ValidationError as error:
        raise ModelError(
            f"{where}: {FIELD} must be a table of variant ({', '.join(NAMES)}) and expansion "
            f"(a number above 0), got {found!r}; correct it, or get the model again"
        ) from error


def type_in_memory(model_type: str) -> str:
    """transformers' name of the model_type in a `config.json`.

    Example:
        >>> type_in_memory("attar_t5"), type_in_memory("t5")
        ('t5', 't5')
    """
    return model_type.removeprefix(FILE_PREFIX)


def type_in_file(config: Mapping[str, Any]) -> str:
    """The model_type to write to a model's `config.json`.

    Example:
        >>> type_in_file({"model_type": "t5", "attar_ffn": {"variant": "1w"}})
        'attar_t5'
    """
    name = type_in_memory(str(config["model_type"]))
    return FILE_PREFIX + name if config.get(FIELD) is not None else name
