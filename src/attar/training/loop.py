"""The one training loop: optimizer steps, evaluations and checkpoints of any objective, with or
without a teacher.

Every step is a pure function of (settings, step, weights, moments): its rows, learning rate and
dropout masks are derived from the step's number. So a run resumed from a checkpoint is
bit-identical to an uninterrupted one (on the same machine with the same number of threads), and
there is no generator or iterator state to restore.

The gradient does not depend on the micro-batch size, because each micro-batch divides its sums by
the counts of the whole batch. If memory runs out, the micro-batch is halved and the step repeated.
Not supported: distributed training and activation checkpointing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from attar.errors import ArtifactError, NonFiniteError, StoppedError
from attar.losses.targets import Counts, Outputs, Targets, WholeBatch, tokens_read
from attar.losses.term import Needs
from attar.losses.total import LossValues, TotalLoss
from attar.numerics.metric_names import LOWER_IS_BETTER
from attar.progress import Task
from attar.seeds import derive_seed
from attar.step import StepContext
from attar.training.forward import fed, forward
from attar.training.job import Job
from attar.training.objectives.examples import StepExamples, Validation
from attar.training.saving.checkpoint import CheckpointStore
from attar.training.saving.history import log_evaluation, log_step, write_history
from attar.training.saving.state import Place, fill_moments_, fill_weights_, moments_of, weights_of
from attar.training.update.guard import (
    halving,
    is_finite,
    require_finite_gradient,
    require_finite_loss,
)
from attar.training.update.optimizer import Schedule, build_optimizer, set_learning_rate_

T = TypeVar("T")

CHECKPOINT_EVERY_S = 60.0
CHECKPOINT_SHARE = 0.05
"""Maximum share of the time for periodic checkpoints, however slow the disk is."""


@dataclass(frozen=True)
class _Taught:
    """A micro-batch, and the teacher's outputs for it."""

    rows: np.ndarray
    inputs: Mapping[str, Tensor]
    targets: Targets
    outputs: Outputs | None


class Loop:
    """A training run: `run()` trains to the end and leaves the selected weights in the model."""

    def __init__(self, job: Job, accelerator: Accelerator, context: StepContext) -> None:
        config = job.config
        self._job, self._config, self._model = job, config, job.model
        self._accelerator, self._context = accelerator, context
        self._store = CheckpointStore(context.scratch, context.progress)
        self._progress, self._track = context.progress, context.track
        self._total = job.total_steps
        self._learned = job.learned
        self._optimizer = build_optimizer(
            self._learned, config, {f"model.{name}": rate for name, rate in job.rates.items()}
        )
        self._learning_rate = Schedule(
            config.schedule,
            config.learning_rate,
            self._total,
            config.warmup(self._total),
            config.minimum_ratio,
        )
        self._checkpoint_seconds = 0.0
        self._saved_at = self._counted_to = time.monotonic()
        self.place = Place()

    def run(self) -> Place:
        """Train to the end, from the newest checkpoint if there is one, and write `history.jsonl`
        into the step's folder.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite; the last good state is kept.
            StoppedError: a stop was requested; the state is saved as a checkpoint.
        """
        self._resume()
        self._model.train()
        job, place = self._job, self.place
        title = f"{job.name}: training"
        with self._progress.task(
            title, job.units(self._total, self._total), counts_work=True
        ) as task:
            task.skip(job.units(place.step, place.evaluated_step))
            while True:
                self._evaluate_if_due(task)
                if place.step == self._total or self._is_out_of_patience():
                    break
                self._stop_if_asked()
                self._step()
                task.advance(note=self._note())
                self._checkpoint_if_due()
        self._keep()
        write_history(self._context.folder, place)
        return place

    def _step(self) -> None:
        """One optimizer step. If it fails, weights and moments are unchanged."""
        job, step = self._job, self.place.step
        rows = job.batches.at(step)
        try:
            remembered = [buffer.clone() for buffer in job.loss.buffers()]
            parts = self._fitting(lambda size: self._accumulate(rows, remembered, size))
            norm = self._accelerator.clip_grad_norm_(
                self._learned.parameters(), self._config.max_grad_norm or float("inf")
            )
            assert norm is not None
            require_finite_gradient(norm, self._learned, rows.tolist(), step)
        except NonFiniteError as error:
            job.loss.forget()
            raise NonFiniteError(f"{error}; {self._keep_last_good()}") from error
        learning_rate = self._learning_rate(step)
        set_learning_rate_(self._optimizer, learning_rate)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.place.step += 1
        self.place.tokens += tokens_read(job.train.counts(rows))
        lines = len(self.place.history)
        log_step(
            self.place,
            parts,
            learning_rate,
            float(norm),
            total_steps=self._total,
            epoch=self._epochs_done(),
        )
        if self.place.history[lines:]:
            self._track(self.place.history[-1])

    def _accumulate(
        self, rows: np.ndarray, remembered: list[Tensor], size: int
    ) -> list[LossValues]:
        """Accumulate the batch's gradient from micro-batches of `size`. An earlier attempt that ran
        out of memory has no effect on it.

        Args:
            remembered: values of the loss's buffers before this step.
        """
        job = self._job
        self._optimizer.zero_grad(set_to_none=True)
        for buffer, before in zip(job.loss.buffers(), remembered, strict=True):
            buffer.copy_(before)
        torch.manual_seed(derive_seed(job.seed, "dropout", self.place.step))
        parts: list[LossValues] = []
        for examples, loss in self._sources(rows, size):
            counts = examples.counts(rows)
            taught = self._taught(examples, loss, rows, size)
            if loss.needs.whole_vectors and size < len(rows):
                taught = self._beside_whole(list(taught))
            for part in taught:
                parts.append(self._backward(part, loss, counts))
        if job.penalty is not None:
            self._accelerator.backward(job.penalty())
        return parts

    def _fitting(self, work: Callable[[int], T]) -> T:
        """Run `work` with a micro-batch size, which is halved as long as memory runs out."""
        size = self.place.micro_batch_size or self._job.evaluation_batch_size
        return halving(work, size, self._halve)

    def _halve(self, size: int, reason: str) -> None:
        self.place.micro_batch_size = size
        self._progress.warn(
            f"{self._job.name}: memory ran out ({reason}); continuing with micro_batch_size = "
            f"{size}; loss and gradient stay those of the whole batch of {self._config.batch_rows}"
        )

    def _sources(self, rows: np.ndarray, size: int) -> Iterator[tuple[StepExamples, TotalLoss]]:
        """The examples of a step with their losses: the training texts, and sampled
        continuations."""
        job = self._job
        if job.loss.terms:
            yield job.train, job.loss
        if job.rollouts is not None:
            with self._accelerator.autocast():
                sampled = job.rollouts.sample(self._model, rows, size, self.place.step)
            yield sampled, job.rollouts.loss

    def _taught(
        self, examples: StepExamples, loss: TotalLoss, rows: np.ndarray, size: int
    ) -> Iterator[_Taught]:
        """The micro-batches of a batch, each with the teacher's outputs: one at a time, unless a
        loss needs the teacher's outputs for the whole batch first.
        """
        cuts = (rows[at : at + size] for at in range(0, len(rows), size))
        parts = (self._teach(examples, loss, cut) for cut in cuts)
        if not loss.needs.whole_batch:
            return parts
        whole = list(parts)
        loss.look_at([p.outputs for p in whole if p.outputs], [p.targets for p in whole])
        return iter(whole)

    def _beside_whole(self, parts: list[_Taught]) -> Iterator[_Taught]:
        """The micro-batches of a loss that compares each with the whole batch. All vectors are
        computed first, with the same dropout masks as later in training."""
        begins = np.cumsum([0, *(len(part.rows) for part in parts)])[:-1].tolist()

        def masks_of(begin: int) -> None:
            seed = derive_seed(self._job.seed, "dropout", self.place.step, begin)
            torch.manual_seed(seed)

        found: list[Tensor] = []
        for part, begin in zip(parts, begins, strict=True):
            masks_of(begin)
            with self._accelerator.autocast():
                given = forward(self._model, fed(part.inputs, self._job.input_names), Needs())
            assert isinstance(given.logits, Tensor)
            # not under no_grad, whose kernels may draw different dropout masks
            found.append(given.logits.detach())
        taught = [part.outputs.logits for part in parts if part.outputs is not None]
        texts = [part.targets.texts for part in parts if part.targets.texts is not None]
        whole = WholeBatch(
            student=_by_side(found),
            teacher=_by_side(taught) if taught else None,
            texts=torch.cat(texts, dim=1) if texts else None,
            begin=0,
        )
        for part, begin in zip(parts, begins, strict=True):
            masks_of(begin)
            targets = replace(part.targets, whole=replace(whole, begin=begin))
            yield replace(part, targets=targets)

    def _teach(self, examples: StepExamples, loss: TotalLoss, rows: np.ndarray) -> _Taught:
        teacher = self._job.teacher if loss.needs.teacher else None
        inputs, targets = examples.batch(rows, self._model.device)
        with self._accelerator.autocast():
            outputs = None if teacher is None else teacher(inputs, rows)
        return _Taught(rows, inputs, targets, outputs)

    def _backward(self, part: _Taught, loss: TotalLoss, counts: Counts) -> LossValues:
        """Forward and backward pass of one micro-batch: its share of the batch's loss and
        gradient."""
        step = self.place.step
        own = fed(part.inputs, self._job.input_names)
        with self._accelerator.autocast():
            given = forward(self._model, own, loss.needs)
        values = loss(given, part.outputs, part.targets, counts, step / self._total)
        require_finite_loss(values.examples, part.rows.tolist(), step)
        self._accelerator.backward(values.total)
        return values

    def _evaluate_if_due(self, task: Task) -> None:
        job, place = self._job, self.place
        if place.step not in job.evaluation_steps or place.evaluated_step == place.step:
            return
        try:
            values = self._fitting(
                lambda size: job.validation.validate(
                    Validation(self._model, job.metrics, size, lambda rows: self._stop_if_asked())
                )
            )
        except NonFiniteError as error:
            raise NonFiniteError(
                f"validation after step {place.step}: {error}; earlier checkpoints are kept; lower "
                "learning_rate or max_grad_norm"
            ) from error
        task.advance(job.evaluation_units)
        first = job.metrics[0]
        sign = -1 if first in LOWER_IS_BETTER else 1
        is_best = log_evaluation(place, values, sign * values[first], self._epochs_done())
        self._track(place.history[-1])
        found = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        self._progress.say(f"  {job.name}: step {place.step}/{self._total}, validation {found}")
        if is_best and place.step < self._total:
            self._checkpoint()

    def _is_out_of_patience(self) -> bool:
        """Whether none of the last `patience` evaluations was an improvement."""
        patience, best = self._config.patience, self.place.best_step
        if patience is None or best is None or self.place.evaluated_step != self.place.step:
            return False
        later = sum("validation" in line and line["step"] > best for line in self.place.history)
        if later < patience:
            return False
        self._progress.say(
            f"  {self._job.name}: stopped early after step {self.place.step} of {self._total}: "
            f"{later} evaluations without a better value than that of step {best}"
        )
        return True

    def _keep(self) -> None:
        """Load the selected weights into the model, and set it to eval mode."""
        if self._config.keep == "best" and self.place.best_step != self.place.step:
            fill_weights_(self._learned, self._store.best_weights)
        self._count_seconds()
        self._model.eval()

    def _resume(self) -> None:
        found = self._store.newest()
        if found is None:
            return
        if found.place.step > self._total:
            raise ArtifactError(
                f"{self._job.name}: a checkpoint is after step {found.place.step}, this run has "
                f"{self._total} steps; it belongs to another run: remove its scratch folder"
            )
        fill_weights_(self._learned, found.weights)
        fill_moments_(self._learned, self._optimizer, found.moments)
        self.place = found.place
        name, now = self._job.name, self._conditions()
        self._progress.say(f"  {name}: continuing after step {self.place.step} of {self._total}")
        then = found.about
        changed = [f"{k} {then.get(k)} → {v}" for k, v in now.items() if then.get(k) != v]
        if changed:
            self._progress.warn(
                f"{name}: the checkpoint was made under other conditions ({', '.join(changed)}); "
                "the run goes on, but not bit for bit as it would have there"
            )

    def _conditions(self) -> dict[str, Any]:
        """Conditions that must be equal for a resumed run to be bit-identical."""
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self._model.device.type,
            "mixed_precision": str(self._accelerator.mixed_precision),
        }

    def _checkpoint_if_due(self) -> None:
        every = self._config.checkpoint_every
        pause = max(CHECKPOINT_EVERY_S, self._checkpoint_seconds / CHECKPOINT_SHARE)
        is_due = (
            time.monotonic() - self._saved_at >= pause
            if every is None
            else self.place.step % every == 0
        )
        if is_due and self.place.step < self._total:
            self._checkpoint()

    def _checkpoint(self) -> None:
        began = time.monotonic()
        self._count_seconds()
        moments = moments_of(self._learned, self._optimizer)
        self._store.save(self.place, weights_of(self._learned), moments, self._conditions())
        self._saved_at = time.monotonic()
        self._checkpoint_seconds = self._saved_at - began

    def _keep_last_good(self) -> str:
        if self.place.step == 0:
            return "no step was finished yet"
        if not is_finite(self._learned):
            return "the weights are no longer finite, so only earlier checkpoints are kept"
        self._checkpoint()
        return f"the state after step {self.place.step} is saved as a checkpoint"

    def _stop_if_asked(self) -> None:
        if self._context.should_stop():
            self._checkpoint()
            raise StoppedError(
                f"{self._job.name} stopped after step {self.place.step} of {self._total}; its "
                "state is saved; continue with `attar resume` or the same command"
            )

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.place.seconds += now - self._counted_to
        self._counted_to = now

    def _epochs_done(self) -> float:
        return round(self.place.step / len(self._job.batches), 4)

    def _note(self) -> str:
        recent = [line for line in self.place.history[-2:] if "loss" in line]
        loss = f", loss {recent[-1]['loss']:.4f}" if recent else ""
        return f"step {self.place.step}/{self._total}{loss}"


def _by_side(vectors: Sequence[Any]) -> Tensor:
    """Reorder vectors of micro-batches (2B, D) as in the whole batch: all first texts, then all
    second texts.
    """
    sides = [each.view(2, -1, each.shape[-1]) for each in vectors]
    return torch.cat(sides, dim=1).flatten(0, 1)
