"""What a weight rule answers with: how each weight of a model is rounded, and all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from transformers import PreTrainedModel

from attar.models.simulated.qparams import Bits
from attar.quantization.weights.nearest import MakeIntegers, QuantizedWeights, quantize_weights
from attar.quantization.weights.summed_tables import TableReads, errors_made_good


@dataclass(frozen=True)
class Rounder:
    """A rule that has seen what it wants to see of a model."""

    make_integers: MakeIntegers
    """For one weight alone."""
    reads: TableReads | None = None
    """What tells tables how to make each other's errors good; None: each stands alone."""

    def quantize(
        self,
        model: PreTrainedModel,
        bits: Bits | Callable[[str, str], int],
        *,
        left_float: Collection[str] = (),
        full_range: bool = False,
    ) -> QuantizedWeights:
        """All weights of `model`, as `quantize_weights` says, tables made good."""
        found = quantize_weights(
            model, bits, self.make_integers, left_float=left_float, full_range=full_range
        )
        return found if self.reads is None else errors_made_good(model, found, self.reads)
