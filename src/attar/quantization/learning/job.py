"""Builds the training job of quantization-aware training: data, float teacher and settings.

The teacher is the float model itself, after the transform, so it has the same classes and tokenizer
as the student. The classes of the data are matched to the model's classes by name, and the head
keeps its order. Training rows without a label contribute only to the distillation loss. A language
model trains on running text, pairs of texts or label words, as in its original training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.load import data_of
from attar.data.tables import UNLABELLED, TextData
from attar.losses.config import VectorMse
from attar.losses.total import TotalLoss
from attar.models.load import LoadedModel, check_length
from attar.quantization.config import QatStep
from attar.quantization.method import Problem
from attar.scoring.matching import output_columns
from attar.step import StepContext
from attar.tasks.task import Task
from attar.training.config import TrainStep
from attar.training.job import Job
from attar.training.objectives.preparing import ready, some_rows
from attar.training.teaching.live import LiveTeacher


def check_qat(config: QatStep, loaded: LoadedModel, context: StepContext) -> None:
    """Check the data and the model before calibration.

    Raises: as `qat_job`, except for missing embeddings, which would require reading every text.
    """
    data, task = _data_and_task(config, loaded.task, context)
    check_length(loaded.model.config, task.max_length, f"{context.name}: the model", made_for=True)
    for name, labelled in _splits(config, task):
        some_rows(data, name, context.name, labelled=labelled)


def qat_job(
    problem: Problem,
    student: PreTrainedModel,
    penalty: Callable[[], Tensor] | None,
    rates: Mapping[str, float],
) -> Job:
    """The job of the training loop: `student` trains on the step's data, and with `distil` also on
    the outputs of `problem.model`.

    Raises:
        ModelError: the objective or classes of the data do not match the model, or the model has
            too few positions or embeddings for the texts.
        DataError: a split has no rows.
    """
    config, context = problem.config, problem.context
    data, task = _data_and_task(config, problem.task, context)
    settings = _settings(config, data.name, task.max_length, embeds=task.kind.embeds)
    reader, readers = LoadedModel(student, problem.folder, task), {"the model": student}
    names, seed = task.input_names, context.seed
    train, validation = (
        ready(task, data, name, reader, readers, names, context, labelled=labelled, seed=seed)
        for name, labelled in _splits(config, task)
    )
    teacher = replace(reader, model=problem.model)
    loss = TotalLoss(settings.effective_losses, data.objective)
    return Job(
        name=context.name,
        config=settings,
        seed=context.seed,
        model=student,
        input_names=task.input_names,
        teacher=LiveTeacher(teacher, loss.needs) if config.distil else None,
        loss=loss,
        train=train,
        validation=validation,
        metrics=task.validated_by,
        penalty=penalty,
        rates=rates,
    )


def _data_and_task(
    config: QatStep, task: Task | None, context: StepContext
) -> tuple[TextData, Task]:
    """The step's data with classes in the model's order, and the model's task with the step's
    `max_length`."""
    data = data_of(context, config.data or config.calibration.data)
    assert task is not None, "a model without a task is refused when it is loaded"
    changes = {"max_length": config.max_length or task.max_length, "metrics": data.metrics}
    data = in_model_order(data, task, config.model, context.progress.warn)
    return data, task.model_copy(update=changes)


def in_model_order(data: TextData, task: Task, model: str, warn: Callable[[str], None]) -> TextData:
    """Renumber the classes of the data in the model's order.

    Raises: as `output_columns`.
    """
    columns = output_columns(model, task, data, warn)
    if not data.kind.has_classes:
        return data
    if data.kind.gives_sets:
        places = np.argsort(columns)
        splits = {n: replace(s, labels=s.labels[:, places]) for n, s in data.splits.items()}
        return replace(data, splits=splits)
    numbers = np.array([*columns, UNLABELLED])  # UNLABELLED is −1 and so indexes the last entry
    splits = {n: replace(s, labels=numbers[s.labels]) for n, s in data.splits.items()}
    return replace(data, splits=splits)


def _splits(config: QatStep, task: Task) -> tuple[tuple[str, bool], ...]:
    """Each split that is read, and whether all of its rows need a label."""
    needs_gold = task.needs_gold(taught=config.distil)
    return ("train", needs_gold), ("validation", task.kind.has_gold)


def _settings(config: QatStep, data_name: str, max_length: int, *, embeds: bool) -> TrainStep:
    """Settings of the training loop: the paper's setup with the step's own values."""
    return TrainStep(
        model=config.model,
        data=data_name,
        losses=(VectorMse(),) if embeds else (),
        teacher=config.model if config.distil else None,
        epochs=config.epochs,
        batch_size=config.batch_size,
        max_length=max_length,
        learning_rate=config.learning_rate,
        schedule="linear",
        warmup_ratio=0.1,
        weight_decay=0.0,
        precision="fp32",
        keep="best",
    )
