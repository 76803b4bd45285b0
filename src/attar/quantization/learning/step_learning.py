"""The fine stage: grids learned by gradient from the error of the final outputs.

The weights are held on their grids, and the gradient of the outputs' error moves every step and
zero point together. A quarter of the calibration batches is held out; of the epochs that do not
make the error of all texts worse, the best by the held-out error is kept, and where none beats the
start, the start is. (Held-out batches alone are too few to judge by: with six batches, epochs were
kept that made the error of all texts 15 % worse.)

    min over all (s, z) of  ‖f̂(x; s, z) − f(x)‖²      (Eq. 9; f̂ quantized with Eq. 6, f float)

Adam, the learning rate falling along a cosine to zero. Attention probabilities are not learned:
they are never clipped. At the published rate, an absolute 1e-5, the stage seldom changes an answer
(docs/methods/token_wise_clipping.md); `largest_move` says how far it came.
Left out: learning the weights too, which is quantization-aware training (`qat`).
Source: Outlier Suppression (Wei et al. 2022), section 4.2 and Algorithm 1, fine-grained stage.
*Differs from the paper:* the held-out quarter, and the roll-back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attar.models.simulated.qparams import SiteQParams
from attar.models.structure.ports import inserted
from attar.quantization.calibration.outputs import frozen, real_logits
from attar.quantization.config import Clipping, StepSizeStep
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
"""Share of the calibration batches that judges what the others taught."""
NEVER_CLIPPED = "probabilities"
"""The port of attention probabilities, a model's own and cross-attention's."""


def learn_steps(problem: Problem, start: Solution) -> Solution:
    """Better grids for the sites of `start`, or `start` itself where nothing better was found.

    Returns: the solution with what happened in details["fine"]: the errors of the start (before)
        and of the grids that are returned (after), on the batches learned from, those held out, and
        all; the epoch kept (0: the start); the largest move of a step in the last epoch, kept or
        not, as a share of itself; and seconds.
    Raises:
        StoppedError: the process was asked to stop; the stage begins again on resume.
    """
    began = time.perf_counter()
    config = problem.config
    learned, held_out = _hold_out(problem)
    if not held_out:
        return start
    quantizers = {grid.site: _learning_quantizer(grid) for grid in start.grids}
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
    """Mean error of the outputs, on the batches learned from, those held out, and all of them."""

    learned: float
    held_out: float
    all: float


class _FineStage:
    """The quantized model while its quantizers learn."""

    def __init__(self, problem: Problem, quantizers: Sequence[SiteQuantizer]) -> None:
        self._problem, self._quantizers = problem, quantizers
        self.loss: str = getattr(problem.config, "loss", "mse")  # step_size has no choice

    def epochs(self, batches: Sequence[int], epochs: int, learning_rate: float) -> Iterator[int]:
        """Learn from these batches, in an order drawn for each epoch; yields after each."""
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
        """The errors of the outputs with the quantizers as they are."""
        found = {number: self._error(number) for number in (*learned, *held_out)}

        def mean(batches: Iterable[int]) -> float:
            sums = [found[number] for number in batches]
            return sum(float(total) for total, _ in sums) / sum(count for _, count in sums)

        return _Errors(mean(learned), mean(held_out), mean(found))

    def grids(self) -> list[SiteQParams]:
        """What the quantizers have learned so far, as it is stored."""
        return [quantizer.grid() for quantizer in self._quantizers]

    def _error(self, number: int) -> tuple[Tensor, int]:
        """A batch's error, summed, and its number of terms, as in `Calibration.error_of`."""
        calibration = self._problem.calibration
        self._problem.context.stop_if_asked("learning step sizes")
        found = real_logits(self._problem.on_grid, calibration.batches[number])
        wanted = calibration.logits[number].clone()  # made in inference mode, of no use to autograd
        if self.loss == "kl":
            log_q, log_p = (torch.log_softmax(logits, dim=-1) for logits in (found, wanted))
            return (log_p.exp() * (log_p - log_q)).sum(), found.numel() // found.shape[-1]
        return (found - wanted).square().sum(), found.numel()


def learning_passes(config: Clipping | StepSizeStep) -> Passes:
    """Forward and backward, each epoch."""
    return Passes(texts=3 * config.epochs)


STEP_LEARNING = Refinement(learn_steps, learning_passes)


def largest_move(start: Sequence[SiteQParams], found: Sequence[SiteQParams]) -> float:
    """max |s' − s| / s over the grids: whether learning moved a step at all."""
    return max(
        abs(new.scale - old.scale) / old.scale for old, new in zip(start, found, strict=True)
    )


def _hold_out(problem: Problem) -> tuple[list[int], list[int]]:
    """Numbers of the batches to learn from, and of those held out to judge what was learned: a
    seeded quarter, at least one; none, and a warning, if there is only one batch.
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


def _learning_quantizer(grid: SiteQParams) -> SiteQuantizer:
    """LSQ+ where values may be clipped; attention probabilities keep their grid."""
    if grid.port == NEVER_CLIPPED:
        return FixedQuantizer(grid)
    return learning_quantizer(grid, LsqPlusQuantizer)
