"""The table of tasks: every kind by its name, as `objective` has it in a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from attar.tasks.causal_lm import CAUSAL_LM
from attar.tasks.classification import CLASSIFICATION
from attar.tasks.kind import Kind
from attar.tasks.regression import REGRESSION
from attar.tasks.text_to_text import TEXT_TO_TEXT

KINDS: Mapping[str, Kind] = {
    kind.name: kind for kind in (CLASSIFICATION, REGRESSION, CAUSAL_LM, TEXT_TO_TEXT)
}

if TYPE_CHECKING:
    Objective = str
else:
    Objective = Literal[tuple(KINDS)]
    """A kind's name in a config; pydantic refuses any other and lists these."""
