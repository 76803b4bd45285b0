"""The base class of all settings: immutable, and unknown names are errors.

A config is plain data. It imports no torch, so that a recipe can be checked in milliseconds. It
serializes to the same JSON on every machine, so that its hash can be part of a step's key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen table of settings. Unknown names are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )


def in_recipe_folder(path: str | Path, recipe_folder: Path) -> Path:
    """A path as written in a recipe: relative to its folder; ~ is the home. Unlike
    `Path.expanduser`, ~name of an unknown user is kept as a name."""
    return recipe_folder / os.path.expanduser(path)  # noqa: PTH111


def as_tuples(value: Any) -> Any:
    """Convert lists to tuples, at any depth.

    Needed in validators that run before pydantic's own: in strict mode, pydantic does not accept a
    list from Python as a tuple.

    Example:
        >>> as_tuples({"batch_sizes": [1, 8]})
        {'batch_sizes': (1, 8)}
    """
    if isinstance(value, dict):
        return {name: as_tuples(inner) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return tuple(as_tuples(inner) for inner in cast("list[Any]", value))
    return value
