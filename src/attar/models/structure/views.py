"""Views of a model that are the same for every family: linear maps, feed-forwards, attentions,
norms.

A view holds no data. `LinearView.weight` is the model's parameter as (O, I), however it is stored
(GPT-2 stores it transposed, and query, key and value in one matrix), and writing into the view
changes the model.

    ffn(x)       = down(act(up(x)))  or, gated,  down(act(gate(x)) · up(x))
    attention(x) = out(softmax(q(x) k(m)ᵀ · scaling + bias + mask) v(m))
                   where m is x itself, or the encoder's output in a cross-attention; each head's q
                   and k can have a norm, and the scores a soft cap

Letters: B batch · T tokens · O / I out and in features · D hidden · H heads · K head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class LinearView:
    """A linear map x ↦ x Wᵀ + b of the model."""

    fqn: str
    """Name of the module that stores it."""
    module: nn.Module
    part: tuple[int, int] | None = None
    """(i, n): the i-th of n equal parts of the out features, if one module stores several maps."""
    is_tied: bool = False
    """Whether the weight is also used elsewhere (an embedding table), so that writing into it
    changes both."""

    @property
    def weight(self) -> Tensor:
        """(O, I), sharing memory with the model's parameter."""
        stored: Any = self.module.weight
        return self._rows(stored.t() if isinstance(self.module, Conv1D) else stored)

    @property
    def bias(self) -> Tensor | None:
        """(O,), sharing memory with the model's parameter; None if there is none."""
        stored: Any = self.module.bias
        return None if stored is None else self._rows(stored)

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    def _rows(self, stored: Tensor) -> Tensor:
        if self.part is None:
            return stored
        index, count = self.part
        size = stored.shape[0] // count
        return stored.narrow(0, index * size, size)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the map, computed from the view."""
        return nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class FfnView:
    """A feed-forward. If it is gated, it has a `gate`, and the activation is applied to `gate`
    instead of `up`.
    """

    fqn: str
    up: LinearView
    gate: LinearView | None
    down: LinearView
    act: Callable[[Tensor], Tensor]
    act_fqn: str
    """Name of the activation's module."""

    @property
    def inputs(self) -> tuple[LinearView, ...]:
        """The maps that read the feed-forward's input."""
        return (self.up,) if self.gate is None else (self.gate, self.up)

    @property
    def maps(self) -> tuple[LinearView, ...]:
        """Every map, in the order of execution."""
        return (*self.inputs, self.down)

    @property
    def inner(self) -> tuple[LinearView, ...]:
        """The maps whose input is not a norm's output."""
        return (self.down,)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the feed-forward, without dropout, computed from its views."""
        if self.gate is None:
            return self.down(self.act(self.up(x)))
        return self.down(self.act(self.gate(x)) * self.up(x))


@dataclass(frozen=True)
class ChainView:
    """A variant of the feed-forward (`ffn_variants`): consecutive maps, followed by relu in some
    variants. Without maps it adds nothing.
    """

    fqn: str
    maps: tuple[LinearView, ...]
    has_relu: bool
    reads_norm: bool
    """False: the first map reads attention's output, or the sum after it."""

    @property
    def inputs(self) -> tuple[LinearView, ...]:
        """The maps that read the output of the feed-forward's norm."""
        return self.maps[:1] if self.reads_norm else ()

    @property
    def inner(self) -> tuple[LinearView, ...]:
        """The maps whose input is not a norm's output."""
        return self.maps[len(self.inputs) :]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the chain, computed from its views."""
        for view in self.maps:
            x = view(x)
        if not self.maps:
            return torch.zeros_like(x)
        return nn.functional.relu(x) if self.has_relu else x


@dataclass(frozen=True)
class AttentionView:
    """An attention. There may be fewer key and value heads than query heads; each then serves heads
    / kv_heads of them.
    """

    fqn: str
    """Name of the module that computes scores and probabilities."""
    module: nn.Module
    q: LinearView
    k: LinearView
    v: LinearView
    out: LinearView
    heads: int
    kv_heads: int
    head_size: int
    scaling: float
    """Factor of q·k: 1/√head_size in most families, 1 in T5."""
    is_cross: bool
    """Whether keys and values come from the encoder's output."""
    is_causal: bool
    q_norm: NormView | None = None
    """Norm of each head's queries, (K,)."""
    k_norm: NormView | None = None
    is_plain: bool = True
    """False: only the maps are known, but not the computation between them."""

    @property
    def head_norms(self) -> tuple[NormView, ...]:
        """Norms on heads. Scores are their readers, so nothing can be moved across them."""
        return tuple(norm for norm in (self.q_norm, self.k_norm) if norm is not None)

    @property
    def inputs(self) -> tuple[LinearView, ...]:
        """The maps that read the block's own hidden state (k and v of a cross-attention read the
        encoder's output).
        """
        return (self.q,) if self.is_cross else (self.q, self.k, self.v)


@dataclass(frozen=True)
class NormView:
    """A LayerNorm or RMSNorm: γ ⊙ x̂ + β, or γ ⊙ x̂."""

    fqn: str
    module: nn.Module
    offset: float = 0.0
    """γ minus the model's parameter: 1 if a norm multiplies by 1 + its parameter."""

    @property
    def weight(self) -> Tensor:
        """γ, (D,). Change it with `set_weight_`."""
        stored: Any = self.module.weight
        return stored + self.offset if self.offset else stored

    def set_weight_(self, weight: Tensor) -> None:
        """Set γ in the model."""
        stored: Any = self.module.weight
        stored.copy_(weight - self.offset if self.offset else weight)

    @property
    def bias(self) -> Tensor | None:
        """β, (D,); None for an RMSNorm, and for a LayerNorm without bias."""
        stored: Any = getattr(self.module, "bias", None)
        return stored

    @property
    def epsilon(self) -> float:
        """The value added to the variance."""
        found: Any = getattr(self.module, "eps", None)
        return float(self.module.variance_epsilon if found is None else found)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Shortcut:
    """The shortcut of a norm's output around a sublayer, to the sum that the next norm reads."""

    norm: NormView
    """The norm that reads the sum."""
    adder: str | None
    """Module that receives the tensor as its second argument and adds it; None: the block computes
    the sum."""
    reader: LinearView
    """The first map that reads the same tensor: if the block computes the sum, the tensor is
    accessible only here."""

    @property
    def owner(self) -> str:
        """Name of the module that stores the `Restore` of this shortcut."""
        return self.norm.fqn if self.adder is None else self.adder


@dataclass(frozen=True)
class NormSite:
    """A norm and all readers of its output: a scale can be moved from the norm into its readers."""

    norm: NormView
    consumers: tuple[LinearView, ...]
    """Linear maps whose input is the norm's output (of one token, if a head reads only one)."""
    shortcuts: tuple[Shortcut, ...]
    """The shortcut of a post-LN block. Empty in pre-LN, and after the last block."""
    is_closed: bool
    """Whether only these readers use the output and none of their weights is tied, so that a
    transform can be moved across.
    """
    stack: str
    block: int | None
    """The block it belongs to; None for a norm of embeddings or after the last block."""

    @property
    def name(self) -> str:
        return self.norm.fqn

    @property
    def num_channels(self) -> int:
        return self.norm.weight.numel()

    @property
    def can_shift(self) -> bool:
        """Whether a shift can be absorbed: the norm and all readers have a bias."""
        biases = (self.norm.bias, *(reader.bias for reader in self.consumers))
        return all(bias is not None for bias in biases)
