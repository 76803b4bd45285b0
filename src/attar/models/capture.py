"""Capture a model's hidden states and attention scores during a forward pass, without changing it.

Hidden states come from hooks around the blocks of the anatomy. Scores are harder: a fused attention
kernel never materializes them, and families compute them differently. But all families pass their
final queries and keys to one pluggable attention function. Ours records, in float32 or wider,
before mask and softmax,

    scores = q kᵀ · scaling + position bias        (B, H, T, S)

with the product soft-capped if the family does so (Gemma 2), and then calls the original function:
outputs are bit-identical with and without capturing.

Nothing is detached: gradients of a loss on captured tensors reach the weights, unless under
`no_grad`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attar.errors import ModelError
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.blocks import Stack
from attar.models.structure.ports import configs_of

Qkv = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values of one attention, with concatenated heads: (B, T, H·K) each. Keys and
values may have fewer heads."""


@dataclass
class Captured:
    """Tensors captured in the last forward pass; a new pass replaces them. Keys are stack names,
    encoder or decoder.
    """

    hidden: dict[str, list[Tensor]] = field(default_factory=dict)
    """Per stack, L + 1 tensors (B, T, D): the input of block 0, then the output of each block
    (before a final norm).
    """
    scores: dict[str, list[Tensor]] = field(default_factory=dict)
    """Per stack, L tensors (B, H, T, T)."""
    cross_scores: dict[str, list[Tensor]] = field(default_factory=dict)
    """Only for the decoder of an encoder-decoder: L tensors (B, H, T, S)."""
    qkv: dict[str, list[Qkv]] = field(default_factory=dict)
    """Per stack, L triples of queries, keys and values of the self-attention, after rotary
    positions."""


@dataclass(frozen=True)
class _Recorder:
    """Callbacks for the tensors of one attention; None: not requested."""

    scores: Callable[[Tensor], None] | None
    qkv: Callable[[Qkv], None] | None = None


_recorders: WeakKeyDictionary[nn.Module, _Recorder] = WeakKeyDictionary()
"""Attention module → its recorder, while it is being captured."""


@contextmanager
def capture(
    model: PreTrainedModel, *, hidden: bool = True, scores: bool = True, qkv: bool = False
) -> Iterator[Captured]:
    """Within the context, each forward pass of `model` fills the yielded `Captured`.

    Raises:
        ModelError: the family is not supported, the model is already being captured, or its
            attention is of another kind.
    """
    anatomy = anatomy_of(model)
    seen = Captured()
    with ExitStack() as undo:
        for stack in anatomy.stacks:
            if hidden:
                _watch_hidden(stack, seen, undo)
            if scores or qkv:
                _watch_attention(stack, seen, undo, scores=scores, qkv=qkv)
        if scores or qkv:
            undo.enter_context(_recording_attention(model))
        yield seen


def _watch_hidden(stack: Stack, seen: Captured, undo: ExitStack) -> None:
    states = seen.hidden.setdefault(stack.name, [])

    def enters(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states[:] = [args[0] if args else kwargs["hidden_states"]]

    def leaves(_: nn.Module, __: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    first = stack.blocks[0].module
    undo.callback(first.register_forward_pre_hook(enters, with_kwargs=True).remove)
    for block in stack.blocks:
        undo.callback(block.module.register_forward_hook(leaves).remove)


def _watch_attention(
    stack: Stack, seen: Captured, undo: ExitStack, *, scores: bool, qkv: bool
) -> None:
    if not all(block.attention.is_plain for block in stack.blocks):
        raise ModelError(
            "attention scores of this family are not plain products of queries and keys and cannot "
            "be captured; use losses on predictions or hidden states, and studies "
            "that need no attention"
        )

    def watch(module: nn.Module, recorder: _Recorder) -> None:
        if module in _recorders:
            raise ModelError(
                "this model's attention is already being captured; exit that `capture` first"
            )
        _recorders[module] = recorder
        undo.callback(_recorders.pop, module)

    for block in stack.blocks:
        is_first = block.index == 0
        into_scores = _filler(seen.scores, stack.name, is_first) if scores else None
        into_qkv = _filler(seen.qkv, stack.name, is_first) if qkv else None
        watch(block.attention.module, _Recorder(into_scores, into_qkv))
        if block.cross_attention is not None and scores:
            into_cross = _filler(seen.cross_scores, stack.name, is_first)
            watch(block.cross_attention.module, _Recorder(into_cross))


def _filler(kept: dict[str, list[Any]], stack: str, is_first: bool) -> Callable[[Any], None]:
    """A function that appends tensors to the stack's list, which is cleared by the first block."""
    values = kept.setdefault(stack, [])

    def fill(value: Any) -> None:
        if is_first:
            values.clear()
        values.append(value)

    return fill


@contextmanager
def _recording_attention(model: PreTrainedModel) -> Iterator[None]:
    """Route every attention of the model through the recording version of its function."""
    configs = configs_of(model)
    kinds = [config._attn_implementation for config in configs]
    twins = {kind: _recording_twin(str(kind)) for kind in set(kinds)}
    try:
        for config, kind in zip(configs, kinds, strict=True):
            config._attn_implementation = twins[kind]
        yield
    finally:
        for config, kind in zip(configs, kinds, strict=True):
            config._attn_implementation = kind


def _record(
    module: nn.Module, query: Tensor, key: Tensor, value: Any, how: Mapping[str, Any]
) -> None:
    recorder = _recorders.get(module)
    if recorder is None:
        return
    if recorder.qkv is not None:
        q, k, v = (_wide(t).transpose(1, 2).flatten(2) for t in (query, key, value))
        recorder.qkv((q, k, v))
    if recorder.scores is None:
        return
    scaling, cap, bias = (how.get(name) for name in ("scaling", "softcap", "position_bias"))
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    shared_by = query.shape[1] // key.shape[1]
    keys = _wide(key).repeat_interleave(shared_by, dim=1)
    with torch.autocast(query.device.type, enabled=False):
        scores = _wide(query) @ keys.transpose(2, 3) * factor
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
    recorder.scores(scores if bias is None else scores + bias)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _recording_twin(kind: str) -> str:
    """Register a function that records and then runs attention of this kind; return its name."""
    twin = f"attar_recording_{kind}"
    if twin in ALL_ATTENTION_FUNCTIONS:
        return twin
    if kind not in ALL_MASK_ATTENTION_FUNCTIONS or (
        kind != "eager" and kind not in ALL_ATTENTION_FUNCTIONS
    ):
        raise ModelError(
            f"attention scores cannot be captured with attention {kind!r}; load the model with "
            'attention="sdpa" or "eager"'
        )

    def record_and_run(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        _record(module, query, key, value, kwargs)
        return _function(kind, module)(module, query, key, value, *args, **kwargs)

    AttentionInterface.register(twin, record_and_run)
    AttentionMaskInterface.register(twin, ALL_MASK_ATTENTION_FUNCTIONS[kind])
    return twin


def _function(kind: str, module: nn.Module) -> Callable[..., Any]:
    """The original function: a registered one, or the eager one in the family's modeling file."""
    if kind in ALL_ATTENTION_FUNCTIONS:
        return ALL_ATTENTION_FUNCTIONS[kind]
    return vars(sys.modules[type(module).__module__])["eager_attention_forward"]
