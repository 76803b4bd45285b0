"""The inputs of a loss: the outputs of a model, and the labels and masks of a batch.

The problem: the gradient of a batch must not depend on the number of micro-batches or their
padding. The idea: terms compute sums and not means. A term returns one *sum* per example and the
`Unit` it counts in; the caller divides by that unit's count over the *whole* batch, which is known
from the labels and the masks before the first forward pass:

    loss = Σ_terms weight · ( Σ_examples sum_B ) / max(count(unit, whole batch), 1)

A model is one stack of blocks ("encoder" or "decoder") or both; facts about tokens are kept by
stack. A classifier predicts once per example, a language model once per token.

Shapes: B examples, T tokens of a stack, S predictions, C classes or vocabulary (1 for a score), D
hidden size, H heads, E = heads · head size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attar.numerics.logits import Index, LazyLogits
from attar.numerics.sparse_distributions import SparseLogits

Unit = str
"""The unit over which a term is a mean: "prediction" (all), "labelled" (those with a gold label),
or a stack's name (its real tokens)."""
Counts = Mapping[Unit, int]

Labels = Int[Tensor, "B"] | Float[Tensor, "B"] | Int[Tensor, "B S"]
UNLABELLED = -1
"""Class number of a prediction without a gold label. For scores it is NaN."""


Qkv = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values of one attention, with concatenated heads: (B, T, E) each."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of a forward pass; what no term needs is empty."""

    logits: Float[Tensor, "B C"] | Float[Tensor, "B S C"] | LazyLogits
    """Logits of tokens are usually computed only when a term needs them."""
    hidden: Mapping[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])
    """Stack → (B, T, D) for the embedding output, then for each block; the last one is after the
    final norm, if there is one."""
    scores: Mapping[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])
    """Stack → (B, H, T, T) of each block's self-attention, before mask and softmax."""
    qkv: Mapping[str, Sequence[Qkv]] = field(default_factory=dict[str, Sequence[Qkv]])
    """Stack → queries, keys and values of each block's self-attention."""
    sparse: SparseLogits | None = None
    """For a teacher whose distributions are partly cached; its logits are then empty."""


@dataclass(frozen=True)
class SampledTokens:
    """Sampled tokens: (B, S), or (N,) for a selection of them."""

    ids: Tensor
    advantages: Tensor
    """Advantage from the tokens after it; without gradient."""
    log_sampled: Tensor
    """Log-probability under the distribution it was sampled from."""
    carried: Tensor
    """Importance weight of the tokens sampled before it."""

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Index | slice) -> SampledTokens:
        return SampledTokens(
            self.ids[index], self.advantages[index], self.log_sampled[index], self.carried[index]
        )


@dataclass(frozen=True)
class WholeBatch:
    """Vectors of all texts of a batch, for losses that compare a micro-batch with the whole
    batch."""

    student: Tensor
    """(2N, D), first texts before second ones; without gradient."""
    teacher: Tensor | None
    texts: Tensor | None
    """Ids of the texts, (2, N)."""
    begin: int
    """First row of this micro-batch in the batch."""


@dataclass(frozen=True)
class Targets:
    """Everything known about a batch besides its inputs."""

    labels: Labels
    """Class numbers (`UNLABELLED` = none) or scores (NaN = none); for a language model, one per
    token."""
    masks: Mapping[str, Int[Tensor, "R T"]]
    """Stack → 1 for a real token, 0 for padding; one row per text."""
    sampled: SampledTokens | None = None
    """For continuations; their ids are the labels."""
    texts: Int[Tensor, "S B"] | None = None
    """For rows whose texts are read separately: ids of the texts, equal for equal texts."""
    whole: WholeBatch | None = None
    """The batch that this micro-batch belongs to, if a loss needs it."""
    sets: Int[Tensor, "B C"] | None = None
    """For multi-label: 1 for each class that is right. `labels` then only state whether a row is
    labelled."""
    facts: Mapping[str, float] = field(default_factory=dict[str, float])
    """Values for the whole batch to log."""

    def at(self, index: Index) -> Tensor | SampledTokens:
        """Labels of some predictions."""
        if self.sets is not None:
            return self.sets[index]
        return (self.labels if self.sampled is None else self.sampled)[index]

    @property
    def predicted(self) -> Bool[Tensor, " B"] | Bool[Tensor, "B S"]:
        """Which predictions count: for rows, all of them, labelled or not (one per text if texts
        are read separately); for tokens, the labelled ones."""
        if self.labels.ndim == 2:
            return is_labelled(self.labels)
        count = len(self.labels) if self.texts is None else self.texts.numel()
        return torch.ones(count, dtype=torch.bool, device=self.labels.device)


def tokens_read(counts: Counts) -> int:
    """Number of tokens of a batch that a model reads, in all its stacks."""
    return sum(n for unit, n in counts.items() if unit not in ("prediction", "labelled"))


def is_labelled(labels: Labels) -> Bool[Tensor, " B"] | Bool[Tensor, "B S"]:
    """Which predictions have a gold label."""
    return ~labels.isnan() if labels.is_floating_point() else labels != UNLABELLED


def count_units(labels: Labels, tokens: Mapping[str, int]) -> dict[Unit, int]:
    """Counts for a whole batch.

    Args:
        labels: of the whole batch, not of a micro-batch.
        tokens: stack → number of real tokens in the whole batch.
    """
    labelled = int(is_labelled(labels).sum())
    return {
        "prediction": labelled if labels.ndim == 2 else len(labels),
        "labelled": labelled,
        **tokens,
    }
