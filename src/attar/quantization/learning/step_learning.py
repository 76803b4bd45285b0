"""The fine stage: all steps and zero points are optimized for the error of the final outputs.

The weights stay on their grids. A quarter of the calibration batches is held out. Among the epochs
that do not increase the error over all texts, the one with the smallest held-out error is kept; if
none improves on the start, the start is kept. (The held-out error alone is not reliable: with six
batches, it selected epochs that increased the error over all texts by 15 %.)

    min over all (s, z) of  ‖f̂(x; s, z) − f(x)‖²      (Eq. 9; f̂ quantized with Eq. 6, f float)

Adam with a cosine schedule to zero. The grids of attention probabilities are not learned, because
probabilities are never clipped. At the published learning rate, an absolute 1e-5, the stage rarely
changes a prediction (docs/methods/token_wise_clipping.md); `largest_move` reports how far the steps
moved.
Left out: training the weights too, which is quantization-aware training (`qat`).
Source: Outlier Suppression (Wei et al. 2022), section 4.2 and Algorithm 1, fine-grained stage.
*Differs from the paper:* the held-out quarter, and the roll-back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attar.losses.predictions import forward_kl
from attar.models.simulated.qparams import SiteQParams
from attar.models.structure.ports import inserted
from attar.quantization.calibration.outputs import frozen, real_logits
from attar.quantization.config import StepLearning
from attar.quantization.learning.quantizers import (
    FixedQuantizer,
    LsqPlusQuantizer,
    SiteQuantizer,
    learning_quantizer,
)
from attar.quantization.method import Passes, Problem, Refinement, Solution
from attar.seeds import generator
from attar.training.update.optimizer import Schedule

HELD_OUT = 1 / 4
"""Share of the calibration batches that is held out."""
NEVER_CLIPPED = "probabilities"
"""Port of attention probabilities, in self-attention and cross-attention."""


def learn_steps(problem: Problem, start: Solution) -> Solution:
    """Optimize the grids of `start`. Returns `start` itself if no epoch improves on it.

    Returns: the solution, with details["fine"]: errors of the start (before) and of the returned
        grids (after), on the training batches, the held-out batches, and all; the epoch kept (0:
        the start); the largest relative change of a step in the last epoch, whether kept or not;
        and seconds.
    Raises:
        StoppedError: the process was asked to stop; the stage starts over on resume.
    """
    began = time.perf_counter()
    config = problem.config
    learned, held_out = _hold_out(problem)
    if not held_out:
        return start
    quantizers = {
        grid.site: FixedQuantizer(grid)
        if grid.port == NEVER_CLIPPED
        else learning_quantizer(grid, LsqPlusQuantizer)
        for grid in start.grids
    }
    with frozen(problem.on_grid), inserted(problem.on_grid, quantizers):
        stage = _FineStage(problem, list(quantizers.values()))
        before = after = stage.errors(learned, held_out)
        kept, grids = 0, start.grids
        for epoch in stage.epochs(learned, config.epochs, config.learning_rate):
            found = stage.errors(learned, held_out)
            if found.held_out < after.held_out and found.all <= before.all:
                kept, after, grids = epoch, found, stage.grids()
        moved = largest_move(start.grids, stage.grids())
    details = {
        "rolled_back": kept == 0,
        "kept_epoch": kept,
        "epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "loss": stage.loss,
        "largest_move": moved,
        "learned": {"batches": len(learned), "before": before.learned, "after": after.learned},
        "held_out": {"batches": len(held_out), "before": before.held_out, "after": after.held_out},
        "all": {"before": before.all, "after": after.all},
        "seconds": time.perf_counter() - began,
    }
    return replace(start, grids=grids, details={**start.details, "fine": details})


@dataclass(frozen=True)
class _Errors:
    """Mean output error on the training batches, the held-out batches, and all batches."""

    learned: float
    held_out: float
    all: float


class _FineStage:
    """The quantized model during the fine stage."""

    def __init__(self, problem: Problem, quantizers: Sequence[SiteQuantizer]) -> None:
        self._problem, self._quantizers = problem, quantizers
        self.loss: str = getattr(problem.config, "loss", "mse")  # step_size has no choice

    def epochs(self, batches: Sequence[int], epochs: int, learning_rate: float) -> Iterator[int]:
        """Train on these batches, shuffled in each epoch; yields after each epoch."""
        context = self._problem.context
        learning = [p for q in self._quantizers for p in q.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(learning, lr=learning_rate)
        rate = Schedule("cosine", learning_rate, epochs * len(batches), warmup_steps=0)
        step = 0
        with context.progress.task("step sizes", epochs * len(batches)) as task:
            for epoch in range(epochs):
                for number in generator(context.seed, "fine", epoch).permutation(batches):
                    optimizer.zero_grad(set_to_none=True)
                    loss, count = self._error(int(number))
                    (loss / count).backward()
                    for group in optimizer.param_groups:
                        group["lr"] = rate(step)
                    optimizer.step()
                    step += 1
                    task.advance()
                yield epoch + 1

    @torch.no_grad()
    def errors(self, learned: Sequence[int], held_out: Sequence[int]) -> _Errors:
        """Output errors with the current quantizers."""
        found = {number: self._error(number) for number in (*learned, *held_out)}

        def mean(batches: Iterable[int]) -> float:
            sums = [found[number] for number in batches]
            return sum(float(total) for total, _ in sums) / sum(count for _, count in sums)

        return _Errors(mean(learned), mean(held_out), mean(found))

    def grids(self) -> list[SiteQParams]:
        """The current grids, in the form that is stored."""
        return [quantizer.grid() for quantizer in self._quantizers]

    def _error(self, number: int) -> tuple[Tensor, int]:
        """Summed error of a batch and its number of terms, as in `Calibration.error_of`."""
        calibration = self._problem.calibration
        self._problem.context.stop_if_asked("learning step sizes")
        found = real_logits(self._problem.on_grid, calibration.batches[number])
        wanted = calibration.logits[number].clone()  # autograd cannot use inference tensors
        if self.loss == "kl":
            return forward_kl(found, wanted).sum(), len(found)
        return (found - wanted).square().sum(), found.numel()


def learning_passes(config: StepLearning) -> Passes:
    """Forward and backward passes of each epoch."""
    return Passes(texts=3 * config.epochs)


STEP_LEARNING = Refinement(learn_steps, learning_passes)


def largest_move(start: Sequence[SiteQParams], found: Sequence[SiteQParams]) -> float:
    """max |s' − s| / s over the grids: the largest relative change of a step."""
    return max(
        abs(new.scale - old.scale) / old.scale for old, new in zip(start, found, strict=True)
    )


def _hold_out(problem: Problem) -> tuple[list[int], list[int]]:
    """Split the batches into training and held-out indices. A seeded quarter is held out, at least
    one batch; with a single batch none is held out and a warning is given.
    """
    calibration, context = problem.calibration, problem.context
    count = len(calibration.batches)
    if count < 2:
        context.progress.warn(
            f"{context.name}: the {calibration.num_examples} calibration texts fit into one batch, "
            "so none can be held out and step sizes are not learned; lower calibration.batch_size"
        )
        return list(range(count)), []
    order = generator(context.seed, "held out").permutation(count).tolist()
    num_held_out = max(1, round(count * HELD_OUT))
    return sorted(order[num_held_out:]), sorted(order[:num_held_out])
