"""Everything that a grid holds, learned from what the float model computes on the same texts.

The problem: at 4 bits no choice of ranges saves a model, because rounding was decided weight by
weight and tensor by tensor, while the errors meet in the layers after. The idea: let all of it move
a little (the weights before rounding, the steps, the ends of the ranges, biases and norms) so that
the hidden states after every block, and the outputs, come back to those of the float model. No
label is read; 256 texts have thousands of tokens with hundreds of targets each.

    min  mean_l ‖ĥ_l − h_l‖²/‖h_l − h̄_l‖²  +  ‖f̂ − f‖²/‖f − f̄‖²

Learning rates are shares of what is learned: a weight moves by a share of its steps, a site's range
by a share of its own, biases, norms and the weights' steps by a tenth of that share of their size;
so one figure fits every tensor. Rounding starts where the weight rule left it: a weight begins in
the middle half of its integer's cell, on the side of its float value. At the cell's very end, where
most of GPTQ's weights have their float value, the first update flips a share of all integers at
once, and with them what GPTQ had made good.

A quarter of the batches is held out, and the best epoch by their hidden states is kept, or the
start where none is better. By the outputs nothing could be told: 64 texts have 128 logits, whose
error moves threefold from epoch to epoch, and the ranges were chosen by those same logits; of
hidden states they have two million.

Left out: embedding tables, whose rows are mostly not in the texts, and attention probabilities.
Source: the objective is that of layer-wise distillation (ZeroQuant, Yao et al. 2022) and of block
reconstruction (BRECQ, Li et al. 2021), here for all blocks at once; gradients are those of LSQ+.
Shape letters: `O` rows, `I` inputs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.simulated.quantized import site_of
from attar.models.structure.ports import inserted
from attar.quantization.calibration.real_tokens import DECODER_MASK, TEXTS_KEY, texts_of
from attar.quantization.learning.step_learning import hold_out, learning_quantizer
from attar.quantization.learning.weights_on_grid import (
    LearnedSteps,
    put_weights_on_learned_grids_,
    stored_weights,
)
from attar.quantization.method import Problem, Solution
from attar.quantization.weights.nearest import QuantizedWeights, put_on_grid_
from attar.seeds import generator
from attar.training.update.schedule import Schedule

CELL = 0.25
"""How far from its integer, in steps, a weight may begin. At 0.499, where nothing but rounding back
is asked for, no epoch of MiniLM's ever beat its start; 0.1 to 0.4 serve alike."""
FLOAT_SHARE = 0.1
"""Biases, norms and the weights' own steps move by this share of the rate."""


def reconstruct(problem: Problem, start: Solution) -> Solution:
    """`start` with grids, weights, biases and norms learned, or `start` itself where held-out texts
    are not served better.

    Returns: the solution with what happened in details["reconstruction"].
    Raises:
        StoppedError: the process was asked to stop; the stage begins again on resume.
    """
    began = time.perf_counter()
    config = problem.config
    learned, held_out = hold_out(problem, "nothing is reconstructed")
    if not held_out:
        return start
    stage = _Reconstruction(problem, start)
    before = stage.error(held_out)
    kept, best, found = 0, before, start
    for epoch in stage.epochs(learned, config.epochs, config.learning_rate):
        error = stage.error(held_out)
        if error < best:
            kept, best, found = epoch, error, stage.solution(start)
    details = {
        "rolled_back": kept == 0,
        "kept_epoch": kept,
        "epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "held_out": {"batches": len(held_out), "before": before, "kept": best},
        "seconds": time.perf_counter() - began,
    }
    return replace(found, details={**start.details, "reconstruction": details})


class _Reconstruction:
    """The quantized model while everything in it learns."""

    def __init__(self, problem: Problem, start: Solution) -> None:
        self._problem = problem
        self._linear = _only_linear(start.weights)
        self.model = copy.deepcopy(problem.model)
        put_on_grid_(self.model, start.weights)
        _begin_inside_cells_(self.model, problem.model, self._linear)
        self._grids = put_weights_on_learned_grids_(self.model, self._linear, LearnedSteps)
        self._quantizers = {site_of(grid): learning_quantizer(grid) for grid in start.grids}

    def epochs(self, batches: Sequence[int], epochs: int, rate: float) -> Any:
        """Learn from these batches, in an order drawn for each epoch; yields after each."""
        context = self._problem.context
        groups = self._groups(rate)
        optimizer = torch.optim.Adam(groups)
        shares = [group["lr"] for group in groups]
        schedule = Schedule.of("cosine", 1.0, epochs * len(batches), warmup_ratio=0.1)
        step = 0
        with context.progress.task("reconstruction", epochs * len(batches)) as task:
            for epoch in range(epochs):
                for number in generator(context.seed, "reconstruction", epoch).permutation(batches):
                    context.stop_if_asked("reconstruction")
                    optimizer.zero_grad(set_to_none=True)
                    self._loss(int(number)).backward()
                    for group, share in zip(optimizer.param_groups, shares, strict=True):
                        group["lr"] = share * schedule(step)
                    optimizer.step()
                    step += 1
                    task.advance()
                yield epoch + 1

    @torch.no_grad()
    def error(self, batches: Sequence[int]) -> float:
        """Mean error of the hidden states on these batches, as shares of their variance."""
        terms = [torch.stack(self._terms(number)[:-1]).mean() for number in batches]
        return float(torch.stack(terms).mean())

    @torch.no_grad()
    def solution(self, start: Solution) -> Solution:
        """What was learned so far, in the form it is stored."""
        linear = stored_weights(self.model, self._grids, self._linear)
        weights = replace(
            start.weights,
            integers={**start.weights.integers, **linear.integers},
            scales={**start.weights.scales, **linear.scales},
            floats=linear.floats,
        )
        grids = [self._quantizers[site_of(grid)].grid() for grid in start.grids]
        return replace(start, grids=grids, weights=weights)

    def _groups(self, rate: float) -> list[dict[str, Any]]:
        """Each learned tensor with a rate in its own measure."""
        groups: list[dict[str, Any]] = []
        for name, parameter in self.model.named_parameters():
            if name in self._grids:
                step = float(self._grids[name].steps(parameter, None).detach().mean())
                groups.append({"params": [parameter], "lr": rate * step})
            elif name.endswith("weight_grid.step"):
                size = float(parameter.detach().abs().mean())
                groups.append({"params": [parameter], "lr": rate * FLOAT_SHARE * size})
            elif parameter.ndim == 1:
                size = float(parameter.detach().square().mean().sqrt())
                groups.append({"params": [parameter], "lr": rate * FLOAT_SHARE * size})
        for quantizer in self._quantizers.values():
            for parameter in quantizer.parameters():
                if parameter.requires_grad:
                    step = float(quantizer.scale_and_zero()[0].detach())
                    groups.append({"params": [parameter], "lr": rate * step})
        return groups

    def _loss(self, number: int) -> Tensor:
        terms = self._terms(number)
        return torch.stack(terms[:-1]).mean() + terms[-1]

    def _terms(self, number: int) -> list[Tensor]:
        """The error of each hidden state of a batch, and last that of the logits."""
        problem = self._problem
        with torch.no_grad():  # again for every batch: kept, they would be gigabytes
            targets = _states(problem.model, problem.calibration.batches[number])
        return [
            (found - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum().clamp(1e-12)
            for found, wanted in zip(self._found(number), targets, strict=True)
        ]

    def _found(self, number: int) -> list[Tensor]:
        with inserted(self.model, self._quantizers):
            return _states(self.model, self._problem.calibration.batches[number])


def _states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Hidden states of real tokens after each block of every stack, (N, D), and last the logits."""
    inputs = {name: tensor for name, tensor in batch.items() if name != TEXTS_KEY}
    outputs = model(**inputs, output_hidden_states=True)
    real = texts_of(batch) > 0
    written = batch[DECODER_MASK] > 0 if DECODER_MASK in batch else real
    stacks = (
        (getattr(outputs, "hidden_states", None), real),
        (getattr(outputs, "encoder_hidden_states", None), real),
        (getattr(outputs, "decoder_hidden_states", None), written),
    )
    states = [state[mask] for stack, mask in stacks if stack is not None for state in stack]
    return [*states, outputs.logits[written] if DECODER_MASK in batch else outputs.logits]


def _only_linear(weights: QuantizedWeights) -> QuantizedWeights:
    """The part of the weights that learns: maps, not tables."""
    shared = set(weights.tied.values())
    entries = tuple(e for e in weights.entries if e.kind == "linear" and e.fqn not in shared)
    return replace(weights, entries=entries, tied={})


@torch.no_grad()
def _begin_inside_cells_(
    model: PreTrainedModel, source: PreTrainedModel, weights: QuantizedWeights
) -> None:
    """Each weight as near to its float value as rounds to the integer it was given."""
    given, floats = dict(model.named_parameters()), dict(source.named_parameters())
    for entry in weights.entries:
        step = weights.scales[entry.fqn][:, None]
        integer = weights.integers[entry.fqn].to(torch.float32)
        inside = (floats[entry.fqn] / step - integer).clamp(-CELL, CELL)
        given[entry.fqn].copy_((integer + inside) * step)
