"""The inputs of a loss: the outputs of a model, and what is known about a batch.

The problem: the gradient of a batch must not depend on the number of micro-batches or their
padding. The idea: no term takes a mean itself. A term returns one *sum* per example and the `Unit`
it counts in; the caller divides by that unit's count over the *whole* batch, which is known from
the labels and the masks before the first forward pass:

    loss = Σ_terms weight · ( Σ_examples sum_B ) / count(unit, whole batch)

A model is one stack of blocks ("encoder" or "decoder") or both; facts about tokens are kept by
stack. A classifier predicts once per example, a language model once per token.

Shapes: B examples, T tokens of a stack, S predictions, C classes or words (1 for a score), D hidden
size, H heads, E = heads · head size.
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
"""What a term is a mean over: "prediction" (all), "labelled" (those with a gold label), or a
stack's name (its real tokens)."""
Counts = Mapping[Unit, int]

Labels = Int[Tensor, "B"] | Float[Tensor, "B"] | Int[Tensor, "B S"]
UNLABELLED = -1
"""The class number of a prediction without a gold label. A score without one is NaN."""


Qkv = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values of one attention, heads side by side: (B, T, E) each."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of a forward pass; what no term needs is empty."""

    logits: Float[Tensor, "B C"] | Float[Tensor, "B S C"] | LazyLogits
    """Logits of tokens are usually computed only when a term needs them."""
    hidden: Mapping[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])
    """Stack → (B, T, D) for the embedding output, then for each block; the last one after a final
    norm."""
    scores: Mapping[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])
    """Stack → (B, H, T, T) of each block's self-attention, before mask and softmax."""
    qkv: Mapping[str, Sequence[Qkv]] = field(default_factory=dict[str, Sequence[Qkv]])
    """Stack → queries, keys and values of each block's self-attention."""
    sparse: SparseLogits | None = None
    """For a teacher whose distributions are partly cached; its logits are then empty."""


@dataclass(frozen=True)
class SampledTokens:
    """What is known of tokens that were sampled, place by place: (B, S), or (N,) of some."""

    ids: Tensor
    advantages: Tensor
    """Advantage of a token from the tokens after it; without gradient."""
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
    """Vectors of all texts of a batch, for losses that compare a micro-batch's with them."""

    student: Tensor
    """(2N, D), first texts before second ones; without gradient."""
    teacher: Tensor | None
    texts: Tensor | None
    """Numbers of the texts, (2, N)."""
    begin: int
    """Row of the batch with which this micro-batch begins."""


@dataclass(frozen=True)
class Targets:
    """What is known about a batch besides the texts."""

    labels: Labels
    """Class numbers (`UNLABELLED` = none) or scores (NaN = none); of a language model one a
    token."""
    masks: Mapping[str, Int[Tensor, "R T"]]
    """Stack → 1 for a real token, 0 for padding; a row for each text that is read."""
    sampled: SampledTokens | None = None
    """Of continuations; their ids are the labels."""
    texts: Int[Tensor, "S B"] | None = None
    """Of rows whose texts are read one by one: numbers of the texts, equal for equal texts."""
    whole: WholeBatch | None = None
    """The batch that this micro-batch belongs to, if a loss needs it."""
    sets: Int[Tensor, "B C"] | None = None
    """Where several classes may be right: 1 for each that is; `labels` then only say whether they
    are known."""
    facts: Mapping[str, float] = field(default_factory=dict[str, float])
    """Figures of the whole batch for the log."""

    def at(self, index: Index) -> Tensor | SampledTokens:
        """What is known of some predictions."""
        if self.sets is not None:
            return self.sets[index]
        return (self.labels if self.sampled is None else self.sampled)[index]

    @property
    def predicted(self) -> Bool[Tensor, " B"] | Bool[Tensor, "B S"]:
        """Which predictions count: every example's, labelled or not, or every text's where they are
        read one by one; of tokens the labelled."""
        if self.labels.ndim == 2:
            return is_labelled(self.labels)
        count = len(self.labels) if self.texts is None else self.texts.numel()
        return torch.ones(count, dtype=torch.bool, device=self.labels.device)


def tokens_read(counts: Counts) -> int:
    """Tokens that a model reads of a batch, in all its stacks."""
    return sum(n for unit, n in counts.items() if unit not in ("prediction", "labelled"))


def is_labelled(labels: Labels) -> Bool[Tensor, " B"] | Bool[Tensor, "B S"]:
    """Which predictions have a gold label."""
    return ~labels.isnan() if labels.is_floating_point() else labels != UNLABELLED


def count_units(labels: Labels, tokens: Mapping[str, int]) -> dict[Unit, int]:
    """Counts over a whole batch; an empty count is 1, because the sum it divides is then 0.

    Args:
        labels: of the whole batch, not of a micro-batch.
        tokens: stack → real tokens in the whole batch.
    """
    labelled = int(is_labelled(labels).sum())
    counts: dict[Unit, int] = {
        "prediction": labelled if labels.ndim == 2 else len(labels),
        "labelled": labelled,
        **tokens,
    }
    return {unit: max(count, 1) for unit, count in counts.items()}
