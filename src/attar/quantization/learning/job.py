"""What quantization-aware training learns from: data, float teacher and settings of the one loop.

The teacher is the float model itself, after the transform, so classes and tokens agree by
construction. Classes of the data are matched by name with the model's, whose order its head keeps.
Training rows without a label teach through the teacher alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.load import data_of
from attar.data.tables import UNLABELLED, Split, TextData
from attar.data.tokenize import TextEncoder
from attar.errors import DataError, ModelError, UsageError
from attar.losses.total import TotalLoss
from attar.models.labels import Match, match_classes, why_not_matched
from attar.models.load import LoadedModel
from attar.quantization.config import QatStep
from attar.quantization.method import Problem
from attar.step import StepContext
from attar.tasks.task import Task
from attar.training.config import TrainStep
from attar.training.forward import stacks_of
from attar.training.job import Job
from attar.training.limits import require_embeddings, require_positions
from attar.training.objectives.labelled import LabelledTexts
from attar.training.teaching.live import LiveTeacher


def check_qat(config: QatStep, loaded: LoadedModel, context: StepContext) -> None:
    """Refuse what could not be trained, before anything is calibrated.

    Raises: as `qat_job`, but for embeddings, which need every text.
    """
    data = _data(config, context)
    task = _task_for(loaded.task, data, context.name)
    max_length = config.max_length or task.max_length
    require_positions(loaded.model, max_length, f"{context.name}: the model")
    for name, labelled in _splits(config):
        _split(data, task, name, labelled, context.name)


def qat_job(
    problem: Problem,
    student: PreTrainedModel,
    penalty: Callable[[], Tensor] | None,
    rates: Mapping[str, float],
) -> Job:
    """The loop's job: `student` learns from the step's data, and from `problem.model` if it is
    distilled.

    Raises:
        UsageError: data for another objective, or with other classes, than the model's.
        ModelError: a model that writes text, or that lacks positions or embeddings for the texts.
        DataError: a split without rows.
    """
    config, context = problem.config, problem.context
    data = _data(config, context)
    task = _task_for(problem.task, data, context.name)
    max_length = config.max_length or task.max_length
    require_positions(student, max_length, f"{context.name}: the model")
    settings = _settings(config, data.name, max_length)
    encoder = TextEncoder.from_folder(problem.folder, max_length, task.input_names)
    stacks = stacks_of(student)
    train, validation = (
        LabelledTexts.of(_split(data, task, split_name, labelled, context.name), encoder, stacks)
        for split_name, labelled in _splits(config)
    )
    require_embeddings(student, (*train.texts, *validation.texts), context.name)
    teacher = LoadedModel(problem.model, problem.folder, task)
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
        metrics=data.metrics,
        penalty=penalty,
        rates=rates,
    )


def _data(config: QatStep, context: StepContext) -> TextData:
    name = config.data or config.calibration.data
    return data_of(context, name)


def _splits(config: QatStep) -> tuple[tuple[str, bool], ...]:
    """Each split that is read, and whether all its rows need a label."""
    return ("train", not config.distil), ("validation", True)


def _settings(config: QatStep, data_name: str, max_length: int) -> TrainStep:
    """The loop's settings: the paper's setup with the step's own figures."""
    return TrainStep(
        model=config.model,
        data=data_name,
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


def _task_for(task: Task | None, data: TextData, step: str) -> Task:
    """The model's task, if it is what the data is for."""
    assert task is not None, "a model without a task is refused when it is loaded"
    if task.has_language_head:
        raise ModelError(
            f"{step}: quantization-aware training knows models with a head for classes or a "
            f"number, this one {task.answers}; use a method without training, such as "
            "outlier_suppression"
        )
    if task.objective != data.objective or _match(task, data) is None:
        raise UsageError(
            f"{step}: the model is for {task.objective} of {list(task.label_names)}, data "
            f"{data.name!r} for {data.objective} of {list(data.label_names)}: "
            + why_not_matched(task.label_names, data.label_names, "the model's config.json")
        )
    return task


def _match(task: Task, data: TextData) -> Match | None:
    """The model's classes as those of the data; a regression has none on either side."""
    given = () if task.kind.is_score else task.label_names
    return match_classes(given, data.label_names, order_is_given=data.order_is_given)


def _split(data: TextData, task: Task, name: str, labelled: bool, step: str) -> Split:
    """One split with its classes numbered as the model numbers them."""
    split = data.split(name, labelled=labelled)
    if len(split) == 0:
        raise DataError(
            f"data {data.name!r}: split {name!r} has no rows left; {step} needs at least one"
        )
    if data.kind.is_score:
        return split
    match = _match(task, data)
    assert match is not None, "refused before"
    numbers = np.array(match.order)
    labels = np.where(split.labels == UNLABELLED, UNLABELLED, numbers[split.labels])
    return replace(split, labels=labels)
