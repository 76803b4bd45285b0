"""The result of a weight rule: how to round each weight of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from transformers import PreTrainedModel

from attar.models.simulated.qparams import Bits
from attar.quantization.weights.nearest import MakeIntegers, QuantizedWeights, quantize_weights
from attar.quantization.weights.summed_tables import TableReads, errors_made_good


@dataclass(frozen=True)
class Rounder:
    """A weight rule with the data that it has collected from a model."""

    make_integers: MakeIntegers
    """Rounds a single weight."""
    reads: TableReads | None = None
    """Rows read from embedding tables, for compensating errors between tables; None: tables are
    rounded independently."""

    def quantize(
        self,
        model: PreTrainedModel,
        bits: Bits | Callable[[str, str], int],
        *,
        left_float: Collection[str] = (),
        full_range: bool = False,
    ) -> QuantizedWeights:
        """Quantize all weights of `model` (see `quantize_weights`), with error compensation between
        embedding tables."""
        found = quantize_weights(
            model, bits, self.make_integers, left_float=left_float, full_range=full_range
        )
        return found if self.reads is None else errors_made_good(model, found, self.reads)
