"""What stands before the changed tensor is not computed again.

The problem: hundreds of forward passes that differ in one tensor each repeat everything in front of
it. The idea: note once in which order modules run; a block that has ended before the first module
that uses the tensor begins gives what it gave in the float model. So that output is kept, and while
the tensor is changed, blocks in front answer with it at once. Half of the work on average, and the
same numbers bit for bit.

Only the outputs behind which the current tensor lies are kept: tensors are best asked for in the
order of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.models.structure.anatomy import anatomy_of
from attar.quantization.calibration.outputs import final_states, real_logits


class Prefix:
    """A model, its texts, and the order in which its modules run."""

    def __init__(self, model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self.model, self.batches = model, batches
        self.blocks = {block.fqn: block.module for block in anatomy_of(model).blocks}
        self._begins, self._ends = self._order()
        self._kept: tuple[tuple[str, ...], list[dict[str, Any]]] = ((), [])

    def logits(self, changed: nn.Module) -> Iterator[Tensor]:
        """The model's logits, batch by batch, when nothing that runs before `changed` differs from
        the float model."""
        done = self._done_before(changed)
        kept = self._outputs_of(done)
        for place, batch in enumerate(self.batches):
            with torch.inference_mode(), self._answering(done, kept[place] if kept else {}):
                yield real_logits(self.model, batch)

    def first_user_of(self, parameter: Tensor) -> nn.Module:
        """Of all modules that hold a parameter the one that runs first."""
        holders = [
            module
            for module in self.model.modules()
            if any(p is parameter for p in module.parameters(recurse=False))
        ]
        return min(holders, key=lambda module: self._begins.get(id(module), 0))

    def _order(self) -> tuple[dict[int, int], dict[str, int]]:
        """When each module first begins, and when each block ends, by one clock."""
        begins: dict[int, int] = {}
        ends: dict[str, int] = {}
        clock = iter(range(10**9))

        def begin(module: nn.Module, _: Any) -> None:
            begins.setdefault(id(module), next(clock))

        def end(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def note(module: nn.Module, _: Any, __: Any) -> None:
                ends[name] = next(clock)

            return note

        with ExitStack() as hooks, torch.inference_mode():
            for module in self.model.modules():
                hooks.callback(module.register_forward_pre_hook(begin).remove)
            for name, block in self.blocks.items():
                hooks.callback(block.register_forward_hook(end(name)).remove)
            first = {name: tensor[:1] for name, tensor in self.batches[0].items()}
            final_states(self.model, first)
        return begins, ends

    def _done_before(self, changed: nn.Module) -> tuple[str, ...]:
        """Blocks that have ended when `changed` begins; none if it was never seen to run."""
        begin = self._begins.get(id(changed), 0)
        return tuple(name for name in self.blocks if self._ends.get(name, begin) < begin)

    def _outputs_of(self, done: tuple[str, ...]) -> list[dict[str, Any]]:
        """For each batch: block → the output of the last block in front, of the same stack."""
        if done == self._kept[0]:  # at first nothing is in front, and nothing is kept
            return self._kept[1]
        last = {_stack(name): name for name in done}
        kept: list[dict[str, Any]] = []
        for batch in self.batches if done else ():
            seen: dict[str, Any] = {}
            with ExitStack() as hooks, torch.inference_mode():
                for stack, name in last.items():
                    keep = _keeping(seen, stack)
                    hooks.callback(self.blocks[name].register_forward_hook(keep).remove)
                final_states(self.model, batch)
            kept.append({name: seen[_stack(name)] for name in done})
        self._kept = (done, kept)
        return kept

    @contextmanager
    def _answering(self, done: Sequence[str], outputs: Mapping[str, Any]) -> Iterator[None]:
        """Blocks give these outputs without computing."""

        def answer(output: Any) -> Callable[..., Any]:
            return lambda *args, **kwargs: output

        for name in done:
            self.blocks[name].forward = answer(outputs[name])
        try:
            yield
        finally:
            for name in done:
                del self.blocks[name].forward


def _keeping(seen: dict[str, Any], stack: str) -> Callable[[nn.Module, Any, Any], None]:
    """A hook that puts a block's output down under the name of its stack."""

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        seen[stack] = output

    return keep


def _stack(block: str) -> str:
    """The list a block belongs to."""
    return block.rpartition(".")[0]
