"""Sensitivity of a tensor: the output error when only this tensor is quantized.

    sensitivity(tensor, bits) = error of the final outputs when only this tensor has `bits` bits

as `Calibration.output_error` measures it (mean squared difference of the logits, or KL of the class
distributions where the method's own loss is KL). A weight is rounded by the method's weight rule, a
site gets the range that the method finds for that width. No label is needed.

This takes one forward pass per tensor and width, on `EXAMPLES` texts; blocks before the changed
tensor are not recomputed (`Prefix`). By chance, rounding noise can make a larger width look worse
than a smaller one; then the smaller width gets the same sensitivity (the smallest non-increasing
majorant).

Left out: second derivatives (HAWQ), and interactions between tensors. That errors are additive is
an assumption; `pareto` measures how well it holds. Error compensation between summed tables is not
modelled either: a table's sensitivity is that of its full error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.models.simulated.quantized import Quantizer
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.ports import inserted
from attar.models.structure.sites import Site
from attar.numerics.affine import dequantize
from attar.quantization.calibration.calibrate import Calibration, calibrate
from attar.quantization.calibration.outputs import final_states, real_logits
from attar.quantization.method import Method, Problem
from attar.quantization.precision.cost import Weight
from attar.quantization.weights.nearest import weight_grid
from attar.quantization.weights.rules import WEIGHT_RULES, Rounder


class Prefix:
    """Caches block outputs of a model, so that unchanged blocks are not recomputed."""

    def __init__(self, model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self.model, self.batches = model, batches
        self.blocks = {block.fqn: block.module for block in anatomy_of(model).blocks}
        self._begins, self._ends = self._order()
        self._kept: tuple[tuple[str, ...], list[dict[str, Any]]] = ((), [])

    def logits(self, changed: nn.Module) -> Iterator[Tensor]:
        """Logits per batch, provided that everything before `changed` is unchanged from the float
        model."""
        done = self._done_before(changed)
        kept = self._outputs_of(done)
        for place, batch in enumerate(self.batches):
            with torch.inference_mode(), self._answering(done, kept[place] if kept else {}):
                yield real_logits(self.model, batch)

    def first_user_of(self, parameter: Tensor) -> nn.Module:
        """The module that runs first among those that hold `parameter`."""
        holders = [
            module
            for module in self.model.modules()
            if any(p is parameter for p in module.parameters(recurse=False))
        ]
        return min(holders, key=lambda module: self._begins.get(id(module), 0))

    def _order(self) -> tuple[dict[int, int], dict[str, int]]:
        """Positions, in execution order, at which each module first starts and each block ends."""
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
        """Blocks that have finished when `changed` starts; empty if `changed` never runs."""
        begin = self._begins.get(id(changed), 0)
        return tuple(name for name in self.blocks if self._ends.get(name, begin) < begin)

    def _outputs_of(self, done: tuple[str, ...]) -> list[dict[str, Any]]:
        """Per batch: block → output of the last finished block of its stack."""
        if done == self._kept[0]:  # initially both are empty
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
        """Replace the blocks `done` by these cached outputs."""

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
    """A hook that stores a block's output under the name of its stack."""

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        seen[stack] = output

    return keep


def _stack(block: str) -> str:
    """Name of the module list that a block belongs to."""
    return block.rpartition(".")[0]


EXAMPLES = 64
"""Number of texts for measuring sensitivities. For a six-block model, 300 passes take minutes on
two cores, against a quarter of an hour with all 256 texts; the ranking of tensors hardly differs.
"""

Sensitivities = Mapping[str, Mapping[int, float]]
"""Tensor's name → bits → loss increase."""


@dataclass(frozen=True)
class Probe:
    """The float model with a subset of the texts and the method's rounding rules."""

    problem: Problem
    """The problem with float weights and the calibration of the subset."""
    method: Method
    rounder: Rounder
    prefix: Prefix
    loss: str

    @classmethod
    def of(cls, problem: Problem, method: Method) -> Probe:
        """Restrict a problem to a subset of its texts, with float weights."""
        whole = problem.calibration
        sites = list(whole.statistics)
        subset = calibrate(problem.model, sites, every_nth(whole, EXAMPLES), problem.context)
        rounder = WEIGHT_RULES[method.weights_of(problem.config)](
            problem.model, subset.batches, problem.context
        )
        alone = replace(problem, on_grid=problem.model, calibration=subset)
        prefix = Prefix(problem.model, subset.batches)
        return cls(alone, method, rounder, prefix, getattr(problem.config, "loss", "mse"))

    @property
    def model(self) -> PreTrainedModel:
        return self.problem.model

    def error_of(self, logits: Iterable[Tensor]) -> float:
        """Output error of these logits on the subset of texts."""
        return self.problem.calibration.error_of(logits, self.loss)


def every_nth(calibration: Calibration, examples: int) -> list[dict[str, Tensor]]:
    """About `examples` texts, spread evenly over all batches and so over all lengths."""
    step = max(1, calibration.num_examples // examples)
    thinned = [
        {name: tensor[::step] for name, tensor in batch.items()} for batch in calibration.batches
    ]
    return [batch for batch in thinned if len(batch["input_ids"])]


def weight_sensitivities(
    probe: Probe, weights: Sequence[Weight], widths: Sequence[int]
) -> Sensitivities:
    """Sensitivity of every weight at every width."""
    parameters = dict(probe.model.named_parameters())

    def error(name: str, bits: int) -> float:
        parameter = parameters[name]
        weight = parameter.detach().to(torch.float32)
        grid = weight_grid(name, weight, bits)
        integers, scale = probe.rounder.make_integers(name, weight, grid)
        stored = replace(grid, scale=scale)
        user = probe.prefix.first_user_of(parameter)
        with _in_place_of(parameter, dequantize(integers, stored, axis=0)):
            return probe.error_of(probe.prefix.logits(user))

    names = [weight.fqn for weight in weights]
    return _measured(probe, "sensitivity of weights", names, widths, error)


def site_sensitivities(probe: Probe, sites: Sequence[Site], widths: Sequence[int]) -> Sensitivities:
    """Sensitivity of every site at every width, with the range that the method finds for it."""
    found = {bits: _quantizers(probe, bits) for bits in widths}
    by_name = {site.name: site for site in sites}

    def error(name: str, bits: int) -> float:
        site = by_name[name]
        with inserted(probe.model, {site: found[bits][name]}):
            return probe.error_of(probe.prefix.logits(probe.model.get_submodule(site.fqn)))

    return _measured(probe, "sensitivity of sites", list(by_name), widths, error)


def _quantizers(probe: Probe, bits: int) -> dict[str, Quantizer]:
    """Quantizers of all sites at the same width."""
    plan = probe.problem.plan
    uniform = replace(plan, bits=plan.bits.model_copy(update={"activation": bits}), of_sites={})
    problem = replace(probe.problem, plan=uniform)
    ranges = probe.method.ranges(problem).ranges
    return {grid.name: Quantizer.of(grid) for grid in problem.grids(ranges)}


def _measured(
    probe: Probe,
    title: str,
    names: Sequence[str],
    widths: Sequence[int],
    error: Callable[[str, int], float],
) -> Sensitivities:
    context = probe.problem.context
    measured: dict[str, dict[int, float]] = {}
    with context.progress.task(title, len(names) * len(widths)) as task:
        for name in names:
            raw: dict[int, float] = {}
            for bits in sorted(widths):
                context.stop_if_asked(f"{title} ({len(measured)} of {len(names)})")
                raw[bits] = error(name, bits)
                task.advance()
            measured[name] = non_increasing(raw)
    return measured


def non_increasing(raw: Mapping[int, float]) -> dict[int, float]:
    """The smallest function above `raw` that does not increase with the width.

    Example:
        >>> non_increasing({2: 5.0, 3: 1.0, 4: 2.0})
        {2: 5.0, 3: 2.0, 4: 2.0}
    """
    repaired: dict[int, float] = {}
    highest = -math.inf
    for bits in sorted(raw, reverse=True):
        highest = max(highest, raw[bits])
        repaired[bits] = highest
    return dict(sorted(repaired.items()))


@contextmanager
def _in_place_of(parameter: Tensor, value: Tensor) -> Iterator[None]:
    """Context manager that temporarily replaces the values of a parameter."""
    before = parameter.data
    parameter.data = value
    try:
        yield
    finally:
        parameter.data = before
