"""The one base of every setting: immutable, and a name it does not know is a mistake.

A config is plain data. It imports no torch, so that a recipe can be checked in milliseconds, and it
dumps to the same JSON on every machine, so that its hash can serve as part of a step's key.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen record of settings whose unknown names are errors, never ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )


def as_tuples(value: Any) -> Any:
    """The value with its lists as tuples, at any depth.

    A validator that runs before pydantic's own hands plain Python on, where strict checking takes a
    list for no tuple; such a validator returns its value through this.

    Example:
        >>> as_tuples({"batch_sizes": [1, 8]})
        {'batch_sizes': (1, 8)}
    """
    if isinstance(value, dict):
        return {name: as_tuples(inner) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return tuple(as_tuples(inner) for inner in cast("list[Any]", value))
    return value
