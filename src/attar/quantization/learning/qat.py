"""Quantization-aware training: weights and quantization grids are trained together.

Fine-tuning continues with quantizers inserted, in the same training loop as `train`, so that
weights, norms and biases adapt to their grids. The float model is the teacher.

    loss = ½·cross-entropy + ½·KL(float ‖ quantized)    distil = true; for a score, squared errors
           cross-entropy                                distil = false

    method     learned for activations      step of each weight row
    lsq        step                         learned
    lsq_plus   step and low end             learned
    pact       clipping values, L2 on them  from the current max|w|

The setup is the paper's: AdamW without weight decay, warm-up over a tenth of the steps, then linear
decay to zero; dropout 0.1 on attention probabilities, 0 elsewhere. A killed and resumed run equals
an uninterrupted one, bit for bit. The model that is written is the checkpoint with the best
validation metric, with integer weights and zero points.

*Differs from the paper*: the learning rate of a site's quantizer is proportional to its step.
Left out: product quantization of weights, which the Quant-Noise paper also covers (none of our
runtimes supports codebooks), and bf16 (its 8 significant bits are too coarse for these grids).
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
from attar.training.saving.state import Place
from attar.training.update.precision import open_accelerator

ATTENTION_DROPOUT = 0.1
"""From Outlier Suppression, table 16."""
BEHIND_ATTENTION = ("resid_dropout", "out_drop")
"""Names of dropouts on an attention module's output projection, in families that keep them in the
same module as the dropout on probabilities."""
SITE_RATE = 20.0
"""Learning rate of a site's step and ends, in grid steps, relative to that of the weights. At a
learning rate of 5e-5, each update moves them by a thousandth of a step."""
PACT_L2 = 1e-4
"""Factor of Σ α² in the loss: PACT uses the weight decay of its ImageNet ResNets."""


@dataclass(frozen=True)
class _Learners:
    """The learned modules of one method."""

    site: MakeQuantizer
    weight: MakeWeightGrid


LEARNERS: Mapping[str, _Learners] = {
    "lsq": _Learners(LsqQuantizer, LearnedSteps),
    "lsq_plus": _Learners(LsqPlusQuantizer, LearnedSteps),
    "pact": _Learners(PactQuantizer, MinmaxSteps),
}


@dataclass(frozen=True)
class _Student:
    """A copy of the float model with learned grids inserted."""

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
        """The trained model as integers and grids."""
        grids = [quantizer.grid() for quantizer in self.quantizers]
        weights = stored_weights(self.model, self.weights, start.weights)
        return Solution(grids, weights, start.details)


def train_quantized(problem: Problem, start: Solution) -> Solution:
    """Train the quantized model, starting at `start`, and convert the result to integers.

    Writes `history.jsonl` next to the model. Resumes from the newest checkpoint in the scratch
    folder, if there is one.

    Raises:
        UsageError: the data's objective does not match the model's.
        DataError: a split has no rows.
        NonFiniteError: a loss or gradient is NaN or infinite.
        StoppedError: the process was asked to stop; a checkpoint was saved.
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
    place = Loop(job, accelerator, context).run()
    for model in (student.model, problem.model):
        model.to(teacher_device)  # pyright: ignore[reportArgumentType]
    found = student.stored(start)
    return replace(found, details={**start.details, "training": _details(job, place)})


def training_passes(config: QatStep) -> Passes:
    """Forward and backward passes per epoch, plus the teacher's forward passes with `distil`."""
    return Passes(training=config.epochs * (3 + config.distil))


QAT = Refinement(train_quantized, training_passes)


def _set_dropout_(model: PreTrainedModel) -> None:
    """Enable dropout on attention probabilities only. Depending on the model family, its rate is in
    a module or a plain number.
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
    """Learning-rate factors of the parameters of site quantizers.

    Adam moves a parameter by about the learning rate per update, whatever its size. Without a
    factor, a step of 0.2 would hardly change during training. Factors are rounded to powers of two
    to keep the number of optimizer groups small.
    """
    return {
        f"{name}.{part}": 2.0 ** round(math.log2(SITE_RATE * module.scale_and_zero()[0].item()))
        for name, module in model.named_modules()
        if isinstance(module, SiteQuantizer)
        for part, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _penalty(quantizers: list[SiteQuantizer]) -> Callable[[], Tensor] | None:
    """PACT's L2 penalty on the learned clipping values; None for other methods."""
    clipping = [q for q in quantizers if isinstance(q, PactQuantizer)]
    if not clipping:
        return None
    learned = [end for q in clipping for end in (q.low, q.high) if end.requires_grad]
    return lambda: PACT_L2 * torch.stack([end.square() for end in learned]).sum()


def _details(job: Job, place: Place) -> dict[str, Any]:
    """Summary of the training for the step's metrics; the curves are in history.jsonl."""
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
