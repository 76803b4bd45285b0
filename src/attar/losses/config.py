"""The terms a training objective can be made of. Imports no torch.

`weight` multiplies a term; the terms add up. A term that needs a teacher says so in
`NEEDS_TEACHER`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attar.config import Config


class CrossEntropy(Config):
    """Against the gold label: cross-entropy for classes, squared error for a score."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    weight: float = Field(default=1.0, ge=0)


class ForwardKl(Config):
    """KL(teacher‖student) of the softened class distributions, times temperature². Squared
    error for a score."""

    kind: Literal["forward_kl"] = "forward_kl"
    weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)


class HiddenMse(Config):
    """Mean squared error between mapped hidden states, real tokens only."""

    kind: Literal["hidden_mse"] = "hidden_mse"
    weight: float = Field(default=1.0, ge=0)
    layer_map: Literal["uniform", "last"] | dict[int, int] = "uniform"
    """Student hidden state → teacher hidden state; 0 is the embedding output. `uniform`: i →
    i·L_teacher/L_student."""


LossConfig = Annotated[CrossEntropy | ForwardKl | HiddenMse, Field(discriminator="kind")]

NEEDS_TEACHER = frozenset({"forward_kl", "hidden_mse"})
