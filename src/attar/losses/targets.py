"""What a loss looks at: the outputs of a model, and what is known about a batch.

The problem: the gradient of a batch must not depend on how many micro-batches it was cut into, nor
on how much padding each of them carries. The idea: no term ever takes a mean of its own. A term
gives one *sum* per example, and says in which `Unit` it counts; the caller divides by that unit's
count over the *whole* batch, which is known from the labels and the masks before the first forward
pass:

    loss = Σ_terms weight · ( Σ_examples sum_B ) / count(unit, whole batch)

Shapes: B examples, T tokens, C classes (1 for a score), D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

Unit = Literal["example", "labelled", "token"]
"""What a term is a mean over: all examples, those with a gold label, or real tokens."""

Labels = Int[Tensor, " B"] | Float[Tensor, " B"]
UNLABELLED = -1
"""The class number of an example without a gold label. A score without one is NaN."""


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gave."""

    logits: Float[Tensor, "B C"]
    hidden_states: tuple[Float[Tensor, "B T D"], ...] = ()
    """Embedding output first, then one per block; empty unless they were asked for."""


@dataclass(frozen=True)
class Targets:
    """What is known about a batch beside the texts."""

    labels: Labels
    """Class numbers (`UNLABELLED` = none) or scores (NaN = none)."""
    attention_mask: Int[Tensor, "B T"]
    """1 for a real token, 0 for padding."""


def is_labelled(labels: Labels) -> Bool[Tensor, " B"]:
    """Which examples have a gold label."""
    return ~labels.isnan() if labels.is_floating_point() else labels != UNLABELLED


def count_units(labels: Labels, num_tokens: int) -> dict[Unit, int]:
    """Counts over a whole batch; an empty count is 1, because the sum it divides is then 0.

    Args:
        labels: of the whole batch, not of a micro-batch.
        num_tokens: real tokens in the whole batch.
    """
    labelled = int(is_labelled(labels).sum())
    counts: dict[Unit, int] = {"example": len(labels), "labelled": labelled, "token": num_tokens}
    return {unit: max(count, 1) for unit, count in counts.items()}
