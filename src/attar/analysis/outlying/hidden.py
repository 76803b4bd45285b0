"""The places where hidden dimensions are examined: hidden states, and the outputs of norms.

Hidden states are numbered as in transformers: 0 is the input of the first block, k the output of
block k − 1. In a model with a final norm (T5, GPT-2, LLaMA), the last one is the output of that
norm, with much smaller values than before. Computation is in float32, because T5's largest values
exceed 1e5, and float16 ends at 65504.

The outputs of all norms are examined, whether or not they are quantized, so all families with an
anatomy are supported.
Shape letters: `B` texts, `T` tokens, `N` real tokens of a stack, `D` hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import NonFiniteError
from attar.models.generation import start_of
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.sites import Site, StackName, norm_sites_of
from attar.models.structure.views import NormView
from attar.quantization.calibration.calibrate import Batch
from attar.quantization.calibration.real_tokens import DECODER_MASK, TEXTS_KEY, texts_of


@dataclass(frozen=True)
class HiddenState:
    """A hidden state, as a place to search for outliers, like a `Site`."""

    fqn: str
    """Its name in transformers."""
    kind: str
    """embedding, block, or normed_block (after the last block and the final norm)."""
    block: int | None
    """The block that it is the output of; None for the embedding."""
    stack: StackName
    index: int
    """Number of the hidden state; 0 for the embedding."""


def hidden_states_of(model: PreTrainedModel) -> list[HiddenState]:
    """The hidden states of a model, stack by stack.

    Raises:
        ModelError: the family is unknown.
    """
    found: list[HiddenState] = []
    stacks = anatomy_of(model).stacks
    for stack in stacks:
        name: StackName = stack.name  # pyright: ignore[reportAssignmentType]
        prefix = f"{name}_" if len(stacks) > 1 else ""
        last = len(stack.blocks)
        for index in range(last + 1):
            kind = "block" if index else "embedding"
            if index == last and stack.final_norm is not None:
                kind = "normed_block"
            block = index - 1 if index else None
            found.append(HiddenState(f"{prefix}hidden_states.{index}", kind, block, name, index))
    return found


def run_with_states(model: PreTrainedModel, batch: Batch) -> Mapping[StackName, Sequence[Tensor]]:
    """Run `model` without its head on a batch: stack → L + 1 hidden states (B, T, D)."""
    inputs = {name: tensor for name, tensor in batch.items() if name != TEXTS_KEY}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = decoder_ids(model, batch)
    seen = model.base_model(**inputs, output_hidden_states=True, use_cache=False, return_dict=True)
    if not model.config.is_encoder_decoder:
        [stack] = anatomy_of(model).stacks
        return {stack.name: seen.hidden_states}  # pyright: ignore[reportReturnType]
    return {"encoder": seen.encoder_hidden_states, "decoder": seen.decoder_hidden_states}


def decoder_ids(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Decoder inputs of an encoder-decoder, (B, T): those of the batch, or the text itself after
    the start token, as in classifiers of these families.
    """
    if "decoder_input_ids" in batch:
        return batch["decoder_input_ids"]
    ids = batch["input_ids"]
    start = torch.full_like(ids[:, :1], start_of(model))
    return torch.cat([start, ids[:, :-1]], dim=1)


def require_finite(state: HiddenState, values: Tensor) -> None:
    """Check that all values are finite.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    bad = int((~values.isfinite()).sum())
    if bad:
        raise NonFiniteError(
            f"{bad} of {values.numel()} values of {state.fqn} are NaN or infinite in float32; "
            "an earlier training step may have diverged; check its weights"
        )


@dataclass(frozen=True)
class Tokens:
    """The real tokens of one stack, in the order in which watchers see them; (N,) each."""

    ids: Tensor
    positions: Tensor
    """Number of real tokens before it in its row."""
    texts: Tensor
    """Index of its text, from 0."""

    @staticmethod
    def of(model: PreTrainedModel, batches: Sequence[Batch], stack: str) -> Tokens:
        """Tokens of all batches, concatenated."""
        ids, positions, texts, seen = [], [], [], 0
        for batch in batches:
            is_decoder = stack == "decoder" and model.config.is_encoder_decoder
            numbers = texts_of(batch)
            if is_decoder:
                numbers = batch.get(DECODER_MASK, numbers)
            real = numbers > 0
            ids.append((decoder_ids(model, batch) if is_decoder else batch["input_ids"])[real])
            positions.append((real.long().cumsum(1) - 1)[real])
            rows = torch.arange(len(real))[:, None] * (int(numbers.max()) + 1) + numbers
            _, number = rows[real].unique(return_inverse=True)
            texts.append(number + seen)
            seen += int(number.max()) + 1
        return Tokens(torch.cat(ids), torch.cat(positions), torch.cat(texts))


@dataclass(frozen=True)
class PlacedNorm:
    view: NormView
    site: Site
    """The site at the norm's output."""

    @property
    def place(self) -> dict[str, Any]:
        """Its position, for a table."""
        return place_row(self.site)

    @property
    def gamma(self) -> Tensor:
        """γ, (D,), float64."""
        return self.view.weight.detach().double()

    @property
    def beta(self) -> Tensor | None:
        """β, (D,), float64; None in an RMSNorm."""
        bias = self.view.bias
        return None if bias is None else bias.detach().double()


def place_row(place: Site | HiddenState) -> dict[str, Any]:
    """Position of a norm or a hidden state, for a table."""
    return {"norm": place.fqn, "kind": place.kind, "stack": place.stack, "block": place.block}


def norms_of(model: PreTrainedModel) -> list[PlacedNorm]:
    """The norms of a model, stack by stack, in the order of the forward pass.

    Raises:
        ModelError: the family is unknown.
    """
    return [
        PlacedNorm(view, site)
        for stack in anatomy_of(model).stacks
        for view, site in norm_sites_of(stack)
    ]
