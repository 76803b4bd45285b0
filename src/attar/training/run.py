"""`run = "train"`: a model, data and perhaps a teacher in; a fine-tuned model folder and its
history out.

All that can be refused (labels, vocabularies, lengths, losses) is refused before the first forward
pass.
"""

from __future__ import annotations

from typing import Any

from attar.artifacts import read_json, verify
from attar.data.load import data_of
from attar.data.tables import TextData
from attar.errors import DataError
from attar.losses.total import TotalLoss, needs_of
from attar.models.config import FromConfig, referenced_model
from attar.models.load import LoadedModel, build_model, config_of, save_model
from attar.models.sources.references import resolve_model
from attar.step import StepContext
from attar.training.config import TrainStep
from attar.training.first_look import first_look
from attar.training.job import Job
from attar.training.limits import require_embeddings, require_positions
from attar.training.loop import Loop
from attar.training.objectives.examples import Examples
from attar.training.objectives.preparing import examples_for, selecting_metrics, task_for
from attar.training.saving.checkpoint import CheckpointStore
from attar.training.saving.history import write_history
from attar.training.saving.state import Place
from attar.training.sensitivity import learn_sensitivities
from attar.training.teachers import Teacher, load_teacher
from attar.training.teaching.header import is_cached
from attar.training.teaching.lesson import Lesson
from attar.training.teaching.pairing import loss_of
from attar.training.update.accelerator import open_accelerator
from attar.training.update.precision import Precision


def train(config: TrainStep, context: StepContext) -> dict[str, Any]:
    """Fit a model to data, alone or with a teacher; see the contract for files and metrics.

    Raises:
        AttarError: whatever a user can mend, before training where it can be known then.
    """
    data = data_of(context, config.data)
    seed = context.seed if config.seed is None else config.seed
    student = _student(config, context, data, seed)
    teacher = _teacher(config, context, student, seed)
    answers = None if teacher is None else teacher.model
    loss = loss_of(config.effective_losses, data.objective, student.model, answers, seed)
    job = _job(config, context, data, student, teacher, loss, seed)
    accelerator, precision = open_accelerator(config.precision, context)
    job.learned.to(accelerator.device)
    if teacher is not None:
        teacher.model.to(accelerator.device)  # pyright: ignore[reportArgumentType]
        teacher.prepare(
            Lesson(
                step=context.name,
                train=job.train,
                max_length=config.max_length,
                loss=loss,
                seed=context.seed,
                device=accelerator.device,
                progress=context.progress,
            )
        )

        learn_sensitivities(job)

    context.scratch.mkdir(parents=True, exist_ok=True)
    store = CheckpointStore(context.scratch, context.progress)
    place = Loop(job, accelerator, store, context.progress, context.should_stop).run()

    student.model.to("cpu")  # pyright: ignore[reportArgumentType]
    save_model(student, context.folder / "model")
    write_history(context.folder, place)
    return _metrics(job, data, place, precision)


def _student(config: TrainStep, context: StepContext, data: TextData, seed: int) -> LoadedModel:
    folder = None
    if isinstance(config.model, FromConfig):
        plain, where = config.model.config, "model.config"
    else:
        folder = resolve_model(
            referenced_model(config.model) or "", context.inputs, context.recipe_folder
        )
        plain, where = read_json(folder / "config.json"), str(folder)
    task = task_for(config, data, config_of(plain, where), folder, context.name)
    student = build_model(
        config.model,
        context.inputs,
        context.recipe_folder,
        task,
        seed,
        first_look=first_look(task, data, seed),
    )
    for note in student.notes:
        context.progress.warn(f"{context.name}: {note}")
    require_positions(student.model, config.max_length, f"{context.name}: the model")
    return student


def _teacher(
    config: TrainStep, context: StepContext, student: LoadedModel, seed: int
) -> Teacher | None:
    if config.teacher is None:
        return None
    needs = needs_of(config.effective_losses)
    if not needs.teacher:
        context.progress.warn(
            f"{context.name}: no loss compares with teacher {config.teacher!r}, so it is not used; "
            "add a loss such as forward_kl, or remove the teacher"
        )
        return None
    folder = resolve_model(config.teacher, context.inputs, context.recipe_folder)
    if config.teacher not in context.inputs and is_cached(folder):
        verify(folder.parent)  # the engine has looked at those of this recipe
    teacher, notes = load_teacher(folder, student, needs=needs, seed=seed)
    for note in notes:
        context.progress.warn(f"{context.name}: {note}")
    require_positions(teacher.model, config.max_length, f"{context.name}: the teacher")
    return teacher


def _job(
    config: TrainStep,
    context: StepContext,
    data: TextData,
    student: LoadedModel,
    teacher: Teacher | None,
    loss: TotalLoss,
    seed: int,
) -> Job:
    task = student.task
    assert task is not None
    names = tuple(dict.fromkeys([*task.input_names, *(teacher.input_names if teacher else ())]))
    has_labels = task.kind.has_gold
    labelled = has_labels and (teacher is None or bool(task.label_words))  # a word is written
    train_split = data.split("train", labelled=labelled)
    validation_split = data.split("validation", labelled=has_labels)
    splits = {"train": train_split, "validation": validation_split}
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(
                f"data {data.name!r}: split {name!r} has no rows left; "
                f"{context.name} needs at least one"
            )
    context.progress.say(
        f"  {context.name}: {len(train_split)} train and {len(validation_split)} validation rows"
    )
    train, validation = (
        examples_for(task, split, name, student, names) for name, split in splits.items()
    )
    for name, examples in (("train", train), ("validation", validation)):
        _say_what_is_cut(context, name, examples)
    for model in (student.model, *([teacher.model] if teacher else [])):
        require_embeddings(model, (*train.texts, *validation.texts), context.name)
    return Job(
        name=context.name,
        config=config,
        seed=seed,
        model=student.model,
        input_names=task.input_names,
        teacher=teacher,
        loss=loss,
        train=train,
        validation=validation,
        metrics=selecting_metrics(task),
    )


def _say_what_is_cut(context: StepContext, split: str, examples: Examples) -> None:
    """How many rows are not read to their end, of their texts and of their targets."""
    for limit, encoded in zip(("max_length", "max_target_length"), examples.texts, strict=False):
        if count := int(encoded.is_cut.sum()):
            context.progress.say(
                f"  {context.name}: {count} of {len(encoded)} {split} rows are longer than "
                f"{limit} and are cut"
            )


def _metrics(job: Job, data: TextData, place: Place, precision: Precision) -> dict[str, Any]:
    kept_step = place.best_step if job.config.keep == "best" else place.step
    kept = next(
        line["validation"]
        for line in place.history
        if "validation" in line and line["step"] == kept_step
    )
    examples = place.step * job.config.batch_size
    return {
        "objective": job.config.objective or data.objective,
        "num_params": sum(parameter.numel() for parameter in job.model.parameters()),
        "steps": place.step,
        "micro_batch_size": place.micro_batch_size or job.evaluation_batch_size,
        "epochs": round(place.step / len(job.batches), 4),
        "best_step": place.best_step,
        "kept_step": kept_step,
        "precision": precision.name,
        "precision_reason": precision.reason,
        "train_seconds": round(place.seconds, 3),
        "examples_per_s": round(examples / place.seconds, 2) if place.seconds else None,
        "validation": kept,
        "data": {
            "name": data.name,
            "train_rows": len(job.train),
            "validation_rows": len(job.validation),
            "set_aside": data.set_aside_counts,
        },
        "losses": [term.model_dump(mode="json") for term in job.config.effective_losses],
    }
