"""Disable dimensions of the residual stream while a model runs.

Embeddings, attention and feed-forward of every block write into the same dimension, so it is
overwritten wherever one block passes the stream to the next,

    h_i[..., j] ← c_{i,j}      i = 0 (input of block 0), 1 … L (output of each block)

with c = 0, or with the dimension's mean over real tokens at that place, which removes its
information but keeps its magnitude. These are the L + 1 tensors that `capture` returns; a final
norm, if there is one, reads the last of them.

Letters: D hidden · L blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.blocks import Stack


@contextmanager
def disabled(
    model: PreTrainedModel,
    dimensions: Mapping[str, Sequence[int]],
    values: Mapping[str, Tensor] | None = None,
) -> Iterator[None]:
    """Within the context, these dimensions of the stream are constant.

    Args:
        dimensions: stack → indices of dimensions; a stack without any gets no hook.
        values: stack → (L + 1, D), their values at each place; None: zero.

    Raises:
        ModelError: the family is not supported, or there is no such stack or dimension.
    """
    anatomy, width = anatomy_of(model), int(model.config.hidden_size)
    with ExitStack() as undo:
        for name, chosen in dimensions.items():
            wrong = [j for j in chosen if not 0 <= j < width]
            if wrong:
                raise ModelError(
                    f"dimensions {wrong} cannot be disabled: the model has {width}, 0 to "
                    f"{width - 1}"
                )
            if chosen:
                places = None if values is None else values[name][:, list(chosen)]
                _overwrite(anatomy.stack(name), list(chosen), places, undo)
        yield


def _overwrite(stack: Stack, chosen: list[int], places: Tensor | None, undo: ExitStack) -> None:
    """Add hooks at every place of one stack.

    Args:
        places: (L + 1, k), or None for zeros.
    """
    columns = torch.tensor(chosen)

    def without(states: Tensor, place: int) -> Tensor:
        constant = 0.0 if places is None else places[place].to(states)
        changed = states.clone()
        changed[..., columns] = constant
        return changed

    def enters(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (without(args[0], 0), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": without(kwargs["hidden_states"], 0)}

    def leaves(place: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (without(output[0], place), *output[1:])
            return without(output, place)

        return hook

    first = stack.blocks[0].module
    undo.callback(first.register_forward_pre_hook(enters, with_kwargs=True).remove)
    for block in stack.blocks:
        handle = block.module.register_forward_hook(leaves(block.index + 1))
        undo.callback(handle.remove)
