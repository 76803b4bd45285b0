"""All that is not an integer, learned from what the float model computes on the same texts.

The problem: at 4 bits no choice of ranges saves a model, because rounding was decided weight by
weight and tensor by tensor, while the errors meet in the layers after. The idea: let what the
integers are multiplied with and added to move a little (the rows' steps, the ranges of the sites,
biases and norms) so that the hidden states after every block, and the outputs, come back to those
of the float model. No label is read; 256 texts have thousands of tokens with hundreds of targets
each.

    min  mean_l ‖ĥ_l − h_l‖²/‖h_l − h̄_l‖²  +  ‖f̂ − f‖²/‖f − f̄‖²

Learning rates are shares of what is learned: a site's range moves by a share of its step, biases,
norms and the weights' steps by a tenth of that share of their size; so one figure fits every
tensor. A quarter of the batches is held out, and the best epoch by their hidden states is kept, or
the start where none is better. By the outputs nothing could be told: 64 texts have 128 logits,
whose error moves threefold from epoch to epoch, and the ranges were chosen by those same logits; of
hidden states they have two million. Both errors are in the details.

Left out: the integers (`steps_on_integers` says why), embedding tables, whose rows are mostly not
in the texts, and attention probabilities.
Source: the objective is that of layer-wise distillation (ZeroQuant, Yao et al. 2022) and of block
reconstruction (BRECQ, Li et al. 2021), here for all blocks at once; gradients of the sites are
those of LSQ+.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.models.simulated.quantized import site_of
from attar.models.structure.ports import inserted
from attar.quantization.calibration.real_tokens import DECODER_MASK, TEXTS_KEY, texts_of
from attar.quantization.learning.step_learning import hold_out, learning_quantizer
from attar.quantization.learning.steps_on_integers import (
    learned_steps,
    put_steps_on_integers_,
)
from attar.quantization.method import Problem, Solution
from attar.quantization.weights.nearest import QuantizedWeights, put_on_grid_
from attar.seeds import generator
from attar.training.update.schedule import Schedule

FLOAT_SHARE = 0.1
"""Biases, norms and the weights' own steps move by this share of the rate."""


def reconstruct(problem: Problem, start: Solution) -> Solution:
    """`start` with grids, biases and norms learned, or `start` itself where held-out texts
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
    before = best = stage.errors(held_out)
    kept, found = 0, start
    for epoch in stage.epochs(learned, config.epochs, config.learning_rate):
        errors = stage.errors(held_out)
        if errors.states < best.states:
            kept, best, found = epoch, errors, stage.solution(start)
    details = {
        "rolled_back": kept == 0,
        "kept_epoch": kept,
        "epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "held_out": {
            "batches": len(held_out),
            "before": before.states,
            "kept": best.states,
            "logits_before": before.logits,
            "logits_kept": best.logits,
        },
        "seconds": time.perf_counter() - began,
    }
    return replace(found, details={**start.details, "reconstruction": details})


@dataclass(frozen=True)
class _Errors:
    """Of hidden states, a mean over blocks of shares of variance; of logits, as `loss` counts."""

    states: float
    logits: float


class _Reconstruction:
    """The quantized model while everything but its integers learns."""

    def __init__(self, problem: Problem, start: Solution) -> None:
        self._problem = problem
        self._linear = _only_linear(start.weights)
        self.model = copy.deepcopy(problem.model)
        put_on_grid_(self.model, start.weights)
        put_steps_on_integers_(self.model, self._linear)
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.ndim == 1)
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
    def errors(self, batches: Sequence[int]) -> _Errors:
        """Mean errors on these batches."""
        problem = self._problem
        states, logits = [], []
        for number in batches:
            found = self._found(number)
            states.append(torch.stack(self._terms(found, number)[:-1]).mean())
            logits.append(found[-1])
        of_logits = problem.calibration.error_of(logits, problem.config.loss, batches)
        return _Errors(float(torch.stack(states).mean()), of_logits)

    @torch.no_grad()
    def solution(self, start: Solution) -> Solution:
        """What was learned so far, in the form it is stored."""
        state = self.model.state_dict()
        weights = replace(
            start.weights,
            scales={**start.weights.scales, **learned_steps(self.model, self._linear)},
            floats={name: state[name].clone() for name in start.weights.floats},
        )
        grids = [self._quantizers[site_of(grid)].grid() for grid in start.grids]
        return replace(start, grids=grids, weights=weights)

    def _groups(self, rate: float) -> list[dict[str, Any]]:
        """Each learned tensor with a rate in its own measure."""
        groups: list[dict[str, Any]] = []
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                size = float(parameter.detach().square().mean().sqrt())
                groups.append({"params": [parameter], "lr": rate * FLOAT_SHARE * size})
        for quantizer in self._quantizers.values():
            for parameter in quantizer.parameters():
                if parameter.requires_grad:
                    step = float(quantizer.scale_and_zero()[0].detach())
                    groups.append({"params": [parameter], "lr": rate * step})
        return groups

    def _loss(self, number: int) -> Tensor:
        terms = self._terms(self._found(number), number)
        return torch.stack(terms[:-1]).mean() + terms[-1]

    def _terms(self, states: Sequence[Tensor], number: int) -> list[Tensor]:
        """The error of each hidden state of a batch, and last that of the logits."""
        problem = self._problem
        with torch.no_grad():  # again for every batch: kept, they would be gigabytes
            targets = _states(problem.model, problem.calibration.batches[number])
        return [
            (found - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum().clamp(1e-12)
            for found, wanted in zip(states, targets, strict=True)
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
    """The part of the weights whose steps learn: maps, not tables."""
    shared = set(weights.tied.values())
    entries = tuple(e for e in weights.entries if e.kind == "linear" and e.fqn not in shared)
    return replace(weights, entries=entries, tied={})
