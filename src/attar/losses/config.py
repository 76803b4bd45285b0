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


class ReverseKl(Config):
    """KL(student‖teacher) of the softened class distributions, times temperature². Squared error
    for a score."""

    kind: Literal["reverse_kl"] = "reverse_kl"
    weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)


class Jsd(Config):
    """Jensen–Shannon divergence of the softened class distributions, times temperature². Squared
    error for a score."""

    kind: Literal["jsd"] = "jsd"
    weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)


class SoftCrossEntropy(Config):
    """Cross-entropy against the teacher's softened distribution, summed over the classes, times
    temperature². Squared error for a score."""

    kind: Literal["soft_cross_entropy"] = "soft_cross_entropy"
    weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)
    score: Literal["teacher", "gold"] = "teacher"
    """What a student of regression is compared with; classes are always the teacher's."""


StateMap = Literal["uniform", "last"] | dict[int, int]
"""Student hidden state → teacher hidden state; 0 is the embedding output. `uniform`: i →
i·L_teacher/L_student; `last`: the last one only."""


class HiddenMse(Config):
    """Mean squared error between mapped hidden states, real tokens only."""

    kind: Literal["hidden_mse"] = "hidden_mse"
    weight: float = Field(default=1.0, ge=0)
    layer_map: StateMap = "uniform"


class HiddenCosine(Config):
    """1 − cosine between mapped hidden states, real tokens only."""

    kind: Literal["hidden_cosine"] = "hidden_cosine"
    weight: float = Field(default=1.0, ge=0)
    layer_map: StateMap = "uniform"


class EmbeddingMse(Config):
    """Mean squared error between the embedding outputs, real tokens only."""

    kind: Literal["embedding_mse"] = "embedding_mse"
    weight: float = Field(default=1.0, ge=0)


class Eofd(Config):
    """Mean squared error between mapped hidden states, each dimension weighted by its spread in
    the teacher: w = (std / mean std)^power."""

    kind: Literal["eofd"] = "eofd"
    weight: float = Field(default=1.0, ge=0)
    power: float = Field(default=0.5, ge=0)
    """0: hidden_mse; the paper uses 0.5 and 1."""
    layer_map: StateMap = "uniform"
    std: Literal["batch", "running"] = "batch"
    """Over the tokens of the step's batch, or of all batches so far."""
    count_padding: bool = False
    """True: spread and error are taken over padding too, as in the published code."""


LossConfig = Annotated[
    CrossEntropy
    | ForwardKl
    | ReverseKl
    | Jsd
    | SoftCrossEntropy
    | HiddenMse
    | HiddenCosine
    | EmbeddingMse
    | Eofd,
    Field(discriminator="kind"),
]

NEEDS_TEACHER = frozenset(
    {
        *("forward_kl", "reverse_kl", "jsd", "soft_cross_entropy"),
        *("hidden_mse", "hidden_cosine", "embedding_mse", "eofd"),
    }
)
