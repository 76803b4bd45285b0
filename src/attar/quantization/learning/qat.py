"""Quantization-aware training: weights and grids learn together, through the one training loop.

Training continues with the quantizers in place, so that weights, norms and biases move to where
their grids can represent them. The float model teaches.

    loss = ½·cross-entropy + ½·KL(float ‖ quantized)    distil = true; for a score, squared errors
           cross-entropy                                distil = false

    method     activations                  weights, a row each
    lsq        step                         step
    lsq_plus   step and low end             step
    pact       clipping values, L2 on them  max|w| as it is now

The setup is the paper's: AdamW without weight decay, a tenth of the steps for warm-up, then linear
to zero, dropout 0 but 0.1 on attention probabilities. A killed and resumed run equals an
uninterrupted one, bit for bit. What is written is what was validated: the state with the best
validation, its weights as integers, its zero points whole.

*Differs from the paper*: what a site's quantizer learns moves in the measure of its own step.
Left out: product quantization of weights, which Quant-Noise was also published with (no runtime
of ours multiplies codebooks); bf16 (a grid of 15 points between numbers of 8 bits).
Source: Outlier Suppression (Wei et al. 2022), section 5.3 and table 16.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.models.structure.ports import insert_
from attar.models.structure.sites import sites_of
from attar.quantization.config import QatStep
from attar.quantization.learning.job import qat_job
from attar.quantization.learning.quantizers import (
    LsqPlusQuantizer,
    LsqQuantizer,
    MakeQuantizer,
    PactQuantizer,
    SiteQuantizer,
    learning_quantizer,
)
from attar.quantization.learning.weights_on_grid import (
    LearnedSteps,
    MakeWeightGrid,
    MinmaxSteps,
    WeightGrid,
    put_weights_on_learned_grids_,
    stored_weights,
)
from attar.quantization.method import Passes, Problem, Refinement, Solution
from attar.training.job import Job
from attar.training.loop import Loop
from attar.training.saving.checkpoint import CheckpointStore
from attar.training.saving.history import write_history
from attar.training.saving.state import Place
from attar.training.update.precision import open_accelerator

ATTENTION_DROPOUT = 0.1
"""Outlier Suppression, table 16's setup."""
BEHIND_ATTENTION = ("resid_dropout", "out_drop")
"""Names of dropouts on what an attention's last map gives, where its module holds them too."""
SITE_RATE = 20.0
"""Learning rate of a site's step and ends, in steps of its grid, over that of the weights: at 5e-5
a thousandth of a step an update."""
PACT_L2 = 1e-4
"""Factor of Σ α² in the loss; PACT takes the weight decay of its ResNets on ImageNet."""


@dataclass(frozen=True)
class _Learners:
    """What learns in one method."""

    site: MakeQuantizer
    weight: MakeWeightGrid


LEARNERS: Mapping[str, _Learners] = {
    "lsq": _Learners(LsqQuantizer, LearnedSteps),
    "lsq_plus": _Learners(LsqPlusQuantizer, LearnedSteps),
    "pact": _Learners(PactQuantizer, MinmaxSteps),
}


@dataclass(frozen=True)
class _Student:
    """A copy of the float model that computes with learning grids."""

    model: PreTrainedModel
    quantizers: list[SiteQuantizer]
    weights: dict[str, WeightGrid]

    @classmethod
    def of(cls, problem: Problem, start: Solution, learners: _Learners) -> _Student:
        model = copy.deepcopy(problem.model)
        weights = put_weights_on_learned_grids_(
            *(model, start.weights, learners.weight), noise=problem.config.quant_noise
        )
        quantizers = [learning_quantizer(grid, learners.site) for grid in start.grids]
        insert_(model, {q.start.site: q for q in quantizers})
        _set_dropout_(model)
        return cls(model, quantizers, weights)

    def stored(self, start: Solution) -> Solution:
        """What was learned, as integers and grids."""
        grids = [quantizer.grid() for quantizer in self.quantizers]
        weights = stored_weights(self.model, self.weights, start.weights)
        return Solution(grids, weights, start.details)


def train_quantized(problem: Problem, start: Solution) -> Solution:
    """Train the quantized model from `start` on and fold what was learned back into integers.

    Writes `history.jsonl` beside the model. Goes on from the newest checkpoint in the scratch
    folder if there is one.

    Raises:
        UsageError: data for another objective than the model's.
        DataError: a split without rows.
        NonFiniteError: a loss or gradient is NaN or infinite.
        StoppedError: the process was asked to stop; its state is a checkpoint.
    """
    config, context = problem.config, problem.context
    learners = LEARNERS[config.method]
    student = _Student.of(problem, start, learners)
    rates = _rates_of_sites(student.model)
    job = qat_job(problem, student.model, _penalty(student.quantizers), rates)
    accelerator, _ = open_accelerator("fp32", context)
    teacher_device = problem.model.device
    for model in (student.model, problem.model):
        model.to(accelerator.device)  # pyright: ignore[reportArgumentType]
    context.scratch.mkdir(parents=True, exist_ok=True)
    store = CheckpointStore(context.scratch, context.progress)
    place = Loop(
        job, accelerator, store, context.progress, context.should_stop, context.track
    ).run()
    for model in (student.model, problem.model):
        model.to(teacher_device)  # pyright: ignore[reportArgumentType]
    write_history(context.folder, place)
    found = student.stored(start)
    return replace(found, details={**start.details, "training": _details(job, place)})


def training_passes(config: QatStep) -> Passes:
    """Forward and backward each epoch, and the teacher's forward pass where it is asked."""
    return Passes(training=config.epochs * (3 + config.distil))


QAT = Refinement(train_quantized, training_passes)


def _set_dropout_(model: PreTrainedModel) -> None:
    """Dropout on attention probabilities alone; some families keep its rate in a module, some in a
    number.
    """
    attentions = {site.fqn for site in sites_of(model) if site.port == "probabilities"}
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            owner, _, own = name.rpartition(".")
            is_attention = owner in attentions and own not in BEHIND_ATTENTION
            module.p = ATTENTION_DROPOUT if is_attention else 0.0
        for attribute in ("dropout", "attention_dropout", "activation_dropout", "layerdrop"):
            if isinstance(getattr(module, attribute, None), float):
                rate = ATTENTION_DROPOUT if name in attentions else 0.0
                setattr(module, attribute, rate)


def _rates_of_sites(model: PreTrainedModel) -> dict[str, float]:
    """Factors for what the sites' quantizers learn: Adam moves a parameter by about its rate,
    whatever its size, so without them a step of 0.2 would hardly have moved when training ends.
    Powers of two, so that the optimizer has a few groups and not one for each site.
    """
    return {
        f"{name}.{part}": _power_of_two(SITE_RATE * float(module.scale_and_zero()[0].detach()))
        for name, module in model.named_modules()
        if isinstance(module, SiteQuantizer)
        for part, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _power_of_two(value: float) -> float:
    """The power of two that is nearest in ratio."""
    return 2.0 ** round(math.log2(value))


def _penalty(quantizers: list[SiteQuantizer]) -> Callable[[], Tensor] | None:
    """PACT's L2 on what is learned of the clipping values; None for the other methods."""
    clipping = [q for q in quantizers if isinstance(q, PactQuantizer)]
    if not clipping:
        return None
    learned = [end for q in clipping for end in (q.low, q.high) if end.requires_grad]
    return lambda: PACT_L2 * torch.stack([end.square() for end in learned]).sum()


def _details(job: Job, place: Place) -> dict[str, Any]:
    """What happened, as plain data; the curves are in history.jsonl."""
    losses = [line for line in place.history if "loss" in line]
    validations = [line for line in place.history if "validation" in line]
    kept = next(line for line in validations if line["step"] == place.best_step)
    return {
        "objective": job.loss.objective,
        "distil": job.teacher is not None,
        "steps": place.step,
        "epochs": round(place.step / len(job.batches), 4),
        "kept_step": place.best_step,
        "first_loss": losses[0]["loss"],
        "last_loss": losses[-1]["loss"],
        "last_losses": losses[-1]["losses"],
        "validation": kept["validation"],
        "train_rows": len(job.train),
        "train_seconds": round(place.seconds, 3),
        "seconds_per_step": place.seconds / place.step,
    }
