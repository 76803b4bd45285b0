"""Cut a narrower model out of a wide one, dropping the least important units.

Whole units are removed in all places at once, so the result is an ordinary model of the same family
with smaller sizes in its config: a neuron is a row of `up` and a column of `down`; a head is its
rows of q, k and v and its columns of `out`; a hidden dimension is a column of every reader of a
hidden state, a row of every writer, and an entry of every norm, in all stacks alike. `importance`
decides what is removed.

Four constants depend on a width and are corrected.

    norms     divide by a spread over D dimensions, now over d. With texts, γ is multiplied by
              E[spread over kept / over all], so that outputs keep their size; removing a dimension
              that equals the mean for every token (0, if no mean is subtracted) then changes
              nothing. Without texts γ is unchanged.
    scores    are multiplied by 1/√K: if heads lose channels, queries are scaled so that the
              remaining q·k has the same weight as before.
    logits    of T5 are divided by √D: the last norm compensates.
    embeddings of Gemma are multiplied by √D: the table compensates, and so does the last norm if
              the head shares the table.

Keeping everything is the identity, bit for bit. Not supported: narrowing the hidden state by
rotation (impossible with norms that have a scale), and different widths in different blocks (which
configs cannot represent).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from attar.errors import ModelError
from attar.models.architecture import buildable_attention, prepare_
from attar.models.config import ChangedModel
from attar.models.narrowing.choice import Cut, Kept, choose
from attar.models.narrowing.importance import Batch, importance_of, spread_ratios
from attar.models.narrowing.parts import Parts, parts_of
from attar.models.narrowing.sizes import Sizes, wanted_sizes
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.views import LinearView, NormView


def narrowed(
    model: PreTrainedModel, reference: ChangedModel, batches: Iterable[Batch] | None = None
) -> PreTrainedModel:
    """A new model with the widths of a reference; `model` is not changed.

    Args:
        batches: inputs of the model for measuring importance; None: use the weights alone.

    Raises:
        ModelError: the model is narrower, or its family does not support a width.
    """
    parts = parts_of(model)
    sizes = wanted_sizes(parts, reference)
    is_on_meta = model.device.type == "meta"
    seen = None if batches is None or is_on_meta else list(batches)
    kept = choose(parts, sizes, importance_of(parts, seen))
    smaller = _built(parts, sizes, kept)
    if is_on_meta:
        return smaller
    with torch.no_grad():
        _rescale_scores_(parts, smaller)
        if sizes.hidden < parts.hidden_size:
            _rescale_norms_(parts, smaller, kept.hidden, seen)
            _rescale_logits_(parts, smaller, sizes.hidden)
            _rescale_embeddings_(parts, smaller, sizes.hidden)
    return smaller.eval()


def _built(parts: Parts, sizes: Sizes, kept: Kept) -> PreTrainedModel:
    """A model with the smaller config and the cut weights."""
    model = parts.model
    config = _config(parts, sizes)
    attention: Any = model.config._attn_implementation
    with torch.random.fork_rng(devices=[]), model.device:
        model_class: Any = type(model)
        smaller: PreTrainedModel = model_class._from_config(
            config, attn_implementation=buildable_attention(model_class, attention)
        )
    prepare_(smaller, attention)
    smaller = smaller.to(model.dtype)  # pyright: ignore[reportArgumentType]
    cuts = dict(_tensor_cuts(parts, kept))
    state = {
        name: cuts[name](tensor) if name in cuts else tensor
        for name, tensor in model.state_dict().items()
    }
    expected = {name: tuple(tensor.shape) for name, tensor in smaller.state_dict().items()}
    wrong = [
        f"{name} {tuple(tensor.shape)} instead of {expected.get(name)}"
        for name, tensor in state.items()
        if tuple(tensor.shape) != expected.get(name)
    ]
    if wrong or set(expected) != set(state):
        raise ModelError(
            f"{type(model).__name__} has {len(wrong)} tensors that narrowing does not support: "
            f"{', '.join(wrong[:4])}; narrow the bare model or a classifier of it"
        )
    if model.device.type != "meta":
        smaller.load_state_dict(state)
    return smaller


def _config(parts: Parts, sizes: Sizes) -> Any:
    config: Any = copy.deepcopy(parts.model.config)
    config.hidden_size = sizes.hidden
    for stack in parts.anatomy.stacks:
        own = sizes.stacks[stack.name]
        if stack.row.embedding_size is not None and stack.embedding_map is None:
            setattr(config, stack.row.embedding_size, sizes.hidden)
        setattr(config, stack.row.heads, own.heads)
        setattr(config, stack.row.intermediate, own.intermediate)
        if stack.row.kv_heads is not None:
            setattr(config, stack.row.kv_heads, own.kv_heads)
        if stack.row.head_size is not None:
            setattr(config, stack.row.head_size, own.head_size)
    return config


def _tensor_cuts(parts: Parts, kept: Kept) -> Iterable[tuple[str, Callable[[Tensor], Tensor]]]:
    """Name of every tensor that becomes smaller → function that cuts it; tied tensors under each of
    their names.
    """
    by_id: dict[int, Callable[[Tensor], Tensor]] = {}
    for views in kept.maps.values():
        module: Any = views[0][0].module
        cut = _whole_cut(views)
        by_id[id(module.weight)] = _slicer(cut, is_transposed=isinstance(module, Conv1D))
        if module.bias is not None:
            by_id[id(module.bias)] = _entries(cut.rows)
    for norm in parts.norms:
        for parameter in norm.module.parameters():
            by_id[id(parameter)] = _entries(kept.hidden)
    for name in parts.tables:
        table: Any = parts.model.get_submodule(name)
        by_id[id(table.weight)] = _slicer(Cut(columns=kept.hidden), is_transposed=False)
    for name, heads in kept.bias_heads.items():
        by_id[id(parts.model.get_parameter(name))] = _slicer(Cut(columns=heads), False)
    for name, rows in kept.space_norms.items():
        for parameter in parts.model.get_submodule(name).parameters():
            by_id[id(parameter)] = _entries(rows)
    for name, parameter in parts.model.named_parameters(remove_duplicate=False):
        if id(parameter) in by_id:
            yield name, by_id[id(parameter)]


def _whole_cut(views: list[tuple[LinearView, Cut]]) -> Cut:
    """The cut of a module that may store several stacked maps."""
    if views[0][0].part is None:
        return views[0][1]
    ordered = sorted(views, key=lambda pair: pair[0].part or (0, 0))
    rows = [
        cut.rows + i * view.out_features
        for i, (view, cut) in enumerate(ordered)
        if cut.rows is not None
    ]
    return Cut(torch.cat(rows), ordered[0][1].columns)


def _slicer(cut: Cut, is_transposed: bool) -> Callable[[Tensor], Tensor]:
    axes = ((cut.rows, 1), (cut.columns, 0)) if is_transposed else ((cut.rows, 0), (cut.columns, 1))

    def slice_(tensor: Tensor) -> Tensor:
        for index, axis in axes:
            tensor = tensor if index is None else tensor.index_select(axis, index)
        return tensor

    return slice_


def _entries(index: Tensor | None) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor if index is None else tensor.index_select(0, index)


def _rescale_scores_(parts: Parts, smaller: PreTrainedModel) -> None:
    pairs = zip(parts.anatomy.blocks, anatomy_of(smaller).blocks, strict=True)
    for old, new in pairs:
        for before, after in zip(old.attentions, new.attentions, strict=True):
            if before.scaling != after.scaling:
                _multiply_(after.q, before.scaling / after.scaling)


def _multiply_(view: LinearView, factor: float) -> None:
    view.weight.mul_(factor)
    if view.bias is not None:
        view.bias.mul_(factor)


def _rescale_norms_(
    parts: Parts, smaller: PreTrainedModel, hidden: Tensor, batches: list[Batch] | None
) -> None:
    if batches is None:
        return
    extra = [space.norm for space in parts.spaces if space.norm is not None and space.is_hidden]
    ratios = spread_ratios(parts, [*parts.norms, *extra], hidden, batches)
    for norm in (*parts.norms, *extra):
        _scale_norm_(smaller, norm, ratios[norm.fqn])


def _rescale_logits_(parts: Parts, smaller: PreTrainedModel, hidden: int) -> None:
    field_name = parts.family.scales_logits
    has_words = parts.model.get_output_embeddings() is not None
    if field_name is None or not has_words or not getattr(parts.model.config, field_name, False):
        return
    final = parts.anatomy.stacks[-1].final_norm
    assert final is not None
    _scale_norm_(smaller, final, (hidden / parts.hidden_size) ** 0.5)


def _rescale_embeddings_(parts: Parts, smaller: PreTrainedModel, hidden: int) -> None:
    if not parts.family.scales_embeddings(parts.model.config):
        return
    wide, narrow = torch.tensor([parts.hidden_size, hidden]).sqrt().tolist()
    factor = wide / narrow  # ratio of float32 roots, as used by transformers
    words: Any = smaller.get_input_embeddings()
    words.weight.mul_(factor)
    output: Any = smaller.get_output_embeddings()
    final = parts.anatomy.stacks[-1].final_norm
    if output is not None and output.weight is words.weight and final is not None:
        _scale_norm_(smaller, final, 1 / factor)


def _scale_norm_(smaller: PreTrainedModel, norm: NormView, factor: float) -> None:
    """Multiply γ by `factor`, in the narrower model."""
    own = replace(norm, module=smaller.get_submodule(norm.fqn))
    own.set_weight_(own.weight * factor)
