"""The one base of every setting: immutable, and a name it does not know is a mistake.

A config is plain data. It imports no torch, so that a recipe can be checked in milliseconds, and it
dumps to the same JSON on every machine, so that its hash can serve as part of a step's key.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen record of settings whose unknown names are errors, never ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
