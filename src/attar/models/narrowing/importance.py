"""Importance of each unit of a model's width, from texts or from its weights alone.

The importance of a unit is its magnitude times the norm of the weights that read it; no gold labels
or gradients are needed:

    neuron j of a feed-forward      E|a_j| · ‖W_down[:, j]‖           a: input of `down`
    head h of an attention          E‖c_h‖ · ‖W_out[:, h]‖            c: the context, input of `out`
    channel j of a head             q and k: E|q_j| · E|k_j|    v and out: E|c_j| · ‖W_out[:, j]‖
    hidden dimension d              Σ over norms E|y_d|               y: the norm's output
    dimension j of a head's space   E|s_j| · ‖W_readers[:, j]‖        s: input of the readers

E is the mean over real tokens. Without texts, the activation is replaced by the norm of the weights
that produce it: ‖W_up[j]‖ (times ‖W_gate[j]‖) for a, ‖W_v‖ for c, and √(γ² + β²) for y, the root
mean square of γ x̂ + β if x̂ has mean 0 and variance 1.

Shapes: B texts, T tokens, D hidden, F neurons, H heads, K head size, E = H·K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attar.errors import ModelError
from attar.models.narrowing.parts import Parts, ffn_of
from attar.models.structure.views import AttentionView, LinearView, NormView

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Importance:
    """One number per unit, float64, never negative."""

    hidden: Tensor
    """(D,)."""
    neurons: Mapping[str, Tensor]
    """Feed-forward's fqn → (F,)."""
    heads: Mapping[str, Tensor]
    """Attention's fqn → (H,)."""
    qk_channels: Mapping[str, Tensor]
    """Attention's fqn → (H·K,); only if there are as many key heads as query heads."""
    vo_channels: Mapping[str, Tensor]
    """As `qk_channels`."""
    spaces: Mapping[str, Tensor]
    """Writer's fqn → (D,)."""


def importance_of(parts: Parts, batches: Iterable[Batch] | None) -> Importance:
    """Importance measured on batches of inputs; None: from the weights alone.

    Raises:
        ModelError: there are no batches.
    """
    loudness = _by_weights(parts) if batches is None else _on_texts(parts, batches)
    attentions = [a for block in parts.anatomy.blocks for a in block.attentions]
    vo = {a.fqn: loudness[f"{a.fqn}:context"] * _norms_of_columns(a.out) for a in attentions}
    return Importance(
        hidden=torch.stack([loudness[norm.fqn] for norm in parts.norms]).sum(dim=0),
        neurons={
            block.ffn.fqn: loudness[block.ffn.fqn] * _norms_of_columns(ffn_of(block).down)
            for block in parts.anatomy.blocks
        },
        heads={
            a.fqn: loudness[f"{a.fqn}:heads"] * _weight(a.out).t().reshape(a.heads, -1).norm(dim=1)
            for a in attentions
        },
        qk_channels={
            a.fqn: loudness[f"{a.fqn}:q"] * loudness[f"{a.fqn}:k"]
            for a in attentions
            if a.heads == a.kv_heads
        },
        vo_channels=vo,
        spaces={
            space.writer.fqn: loudness[f"{space.writer.fqn}:space"]
            * (_norms_of_columns(*space.readers) if space.readers else 1)
            for space in parts.spaces
        },
    )


def _weight(view: LinearView) -> Tensor:
    return view.weight.detach().double()


def _norms_of_columns(*views: LinearView) -> Tensor:
    """‖W[:, j]‖ over the rows of all maps, (I,)."""
    return torch.cat([_weight(view) for view in views]).norm(dim=0)


def _norms_of_rows(view: LinearView) -> Tensor:
    """‖(W[j], b_j)‖, (O,)."""
    weight_OI = _weight(view)
    if view.bias is None:
        return weight_OI.norm(dim=1)
    return torch.cat([weight_OI, view.bias.detach().double()[:, None]], dim=1).norm(dim=1)


def _by_weights(parts: Parts) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for norm in parts.norms:
        bias = 0.0 if norm.bias is None else norm.bias.detach().double()
        found[norm.fqn] = (norm.weight.detach().double() ** 2 + bias**2) ** 0.5
    for block in parts.anatomy.blocks:
        rows = [_norms_of_rows(view) for view in block.ffn.inputs]
        found[block.ffn.fqn] = torch.stack(rows).prod(dim=0)
        for a in block.attentions:
            found[f"{a.fqn}:q"], found[f"{a.fqn}:k"] = _norms_of_rows(a.q), _norms_of_rows(a.k)
            # each head of keys and values serves several query heads
            values_HK = _norms_of_rows(a.v).reshape(a.kv_heads, a.head_size)
            context_HK = values_HK.repeat_interleave(a.heads // a.kv_heads, dim=0)
            found[f"{a.fqn}:context"] = context_HK.reshape(-1)
            found[f"{a.fqn}:heads"] = context_HK.norm(dim=1)
    for space in parts.spaces:
        found[f"{space.writer.fqn}:space"] = _norms_of_rows(space.writer)
    return found


class Mean:
    """A running mean over real tokens, of a function of a tensor's last axis."""

    def __init__(self, of: Callable[[Tensor], Tensor] = torch.abs) -> None:
        self._of = of
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, values: Tensor, mask: Tensor | None) -> None:
        """Add a tensor (B, T, …) of tokens, or (B, …) of texts.

        Args:
            mask: (B, T), 1 for real tokens; None: all are real.
        """
        values = values.detach().double()
        if mask is not None and values.ndim >= 3 and mask.shape == values.shape[:2]:
            values = values[mask.bool()]
        values = self._of(values.reshape(-1, values.shape[-1]))
        total = values.sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total
        self._count += len(values)

    @property
    def value(self) -> Tensor:
        if self._sum is None or not self._count:
            raise ModelError("importance needs at least one batch of texts; give it data with rows")
        return self._sum / self._count


def watch(
    parts: Parts, batches: Iterable[Batch], watched: Sequence[tuple[nn.Module, bool, str, Any]]
) -> None:
    """Run the model over batches, with hooks on some modules.

    Args:
        watched: (module, whether to read its input instead of its output, the stack that its tokens
            belong to, function of (tensor, mask of these tokens)).
    """
    masks: dict[str, Tensor | None] = {}

    def hook(reads_input: bool, stack: str, see: Any) -> Callable[..., None]:
        def run(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            see(args[0] if reads_input else output, masks[stack])

        return run

    handles = [
        module.register_forward_hook(hook(reads_input, stack, see))
        for module, reads_input, stack, see in watched
    ]
    was_training = parts.model.training
    parts.model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                # by stack and never by shape: a source and its target may have equal lengths
                mask = batch.get("attention_mask")
                masks.update(encoder=mask, decoder=batch.get("decoder_attention_mask", mask))
                parts.model(**{n: t.to(parts.model.device) for n, t in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
        parts.model.train(was_training)


def _on_texts(parts: Parts, batches: Iterable[Batch]) -> dict[str, Tensor]:
    means: dict[str, Mean] = {}
    watched: list[tuple[nn.Module, bool, str, Any]] = []

    def see(
        name: str, module: nn.Module, of: str, mean: Mean, *, reads_input: bool, part: Any = None
    ):
        means[name] = mean

        def add(tensor: Tensor, mask: Tensor | None) -> None:
            mean.add(tensor if part is None else tensor.chunk(part[1], dim=-1)[part[0]], mask)

        watched.append((module, reads_input, of, add))

    stack_of = _stacks_of_norms(parts)
    for norm in parts.norms:
        see(norm.fqn, norm.module, stack_of[norm.fqn], Mean(), reads_input=False)
    for stack, block in ((s.name, block) for s in parts.anatomy.stacks for block in s.blocks):
        see(block.ffn.fqn, ffn_of(block).down.module, stack, Mean(), reads_input=True)
        for a in block.attentions:
            see(f"{a.fqn}:context", a.out.module, stack, Mean(), reads_input=True)
            see(f"{a.fqn}:heads", a.out.module, stack, Mean(_heads_of(a)), reads_input=True)
            for name, view, of in (
                ("q", a.q, stack),
                ("k", a.k, "encoder" if a.is_cross else stack),
            ):
                see(f"{a.fqn}:{name}", view.module, of, Mean(), reads_input=False, part=view.part)
    last = parts.anatomy.stacks[-1].name
    for space in parts.spaces:
        watched_view = space.readers[0] if space.readers else space.writer
        name = f"{space.writer.fqn}:space"
        see(name, watched_view.module, last, Mean(), reads_input=bool(space.readers))
    watch(parts, batches, watched)
    return {name: mean.value for name, mean in means.items()}


def _stacks_of_norms(parts: Parts) -> dict[str, str]:
    stacks = parts.anatomy.stacks
    post = {norm.fqn: s.name for s in stacks for block in s.blocks for norm in block.post_norms}
    return {site.norm.fqn: site.stack for site in parts.anatomy.norm_sites} | post


def _heads_of(attention: AttentionView) -> Callable[[Tensor], Tensor]:
    return lambda context_NE: context_NE.reshape(
        len(context_NE), attention.heads, attention.head_size
    ).norm(dim=2)


def spread_ratios(
    parts: Parts, norms: Sequence[NormView], kept: Tensor, batches: Iterable[Batch]
) -> dict[str, float]:
    """Norm's fqn → E[ spread of its input over the kept dimensions / over all ].

    The spread is the norm's divisor: √(variance + ε), or √(mean square + ε) if it subtracts no
    mean.
    """

    def ratio(norm: NormView) -> Callable[[Tensor], Tensor]:
        def of(x_ND: Tensor) -> Tensor:
            return _spread(norm, x_ND[:, kept]) / _spread(norm, x_ND)

        return of

    means = {norm.fqn: Mean(ratio(norm)) for norm in norms}
    last, stack_of = parts.anatomy.stacks[-1].name, _stacks_of_norms(parts)
    watched = [
        (norm.module, True, stack_of.get(norm.fqn, last), means[norm.fqn].add) for norm in norms
    ]
    watch(parts, batches, watched)
    return {name: float(mean.value) for name, mean in means.items()}


def _spread(norm: NormView, x_ND: Tensor) -> Tensor:
    if isinstance(norm.module, nn.LayerNorm):
        x_ND = x_ND - x_ND.mean(dim=1, keepdim=True)
    return (x_ND.pow(2).mean(dim=1, keepdim=True) + norm.epsilon).sqrt()
