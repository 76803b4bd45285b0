"""`run = "train"`: train a model on data, optionally with a teacher; write a model folder and its
history.

All invalid inputs (labels, vocabularies, lengths, losses) are rejected before the first forward
pass.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from attar.artifacts import read_json
from attar.data.corpus.retokenizing import retokenized
from attar.data.load import data_of
from attar.data.look.lengths import tokens_of
from attar.data.look.one_pass import summary_of
from attar.data.packing import document_tokenizer
from attar.data.tables import UNLABELLED_SPLIT, TextData
from attar.errors import UsageError
from attar.losses.targets import tokens_read
from attar.losses.total import TotalLoss
from attar.models.config import ChangedModel, FromConfig, referenced_model
from attar.models.cost import Cost
from attar.models.head_chunks import has_plain_head
from attar.models.load import LoadedModel, build_model, config_of, save_model
from attar.models.sources.references import resolve_model
from attar.models.static_student import static_config
from attar.step import CountedFlops, StepContext
from attar.training.config import Matched, Retokenized, TrainMetrics, TrainStep
from attar.training.first_look import first_look
from attar.training.job import Job, first_batch
from attar.training.loop import Loop
from attar.training.objectives.examples import Examples, Streamed
from attar.training.objectives.labelled import LabelledTexts
from attar.training.objectives.preparing import of_one_width, ready, task_for
from attar.training.objectives.quoted import with_threshold
from attar.training.rollouts import Rollouts
from attar.training.saving.state import Place
from attar.training.squared_gradients import learn_squared_gradients
from attar.training.teachers import Teacher, open_teacher
from attar.training.teaching.live import LiveTeacher
from attar.training.teaching.teacher_inputs import TeacherInputs, loss_of
from attar.training.update.precision import Precision, open_accelerator
from attar.training.work import (
    TrainingWork,
    continued_flops,
    flops_of_run,
    forward_flops,
    matched_words,
    matmul_seconds,
)


def train(config: TrainStep, context: StepContext) -> TrainMetrics:
    """Train a model on data, with or without a teacher; see the contract for files and metrics."""
    data = data_of(context, config.data_name, part=config.part)
    if isinstance(config.data, Retokenized):
        data = _retokenized(config, config.data, context, data)
    if not config.learn_prompts:
        data = _without_prompts(config, context, data)
    seed = context.seed if config.seed is None else config.seed
    student = _student(config, context, data, seed)
    teacher = open_teacher(config, context, student, seed)
    job = _job(config, context, data, student, teacher, seed)
    work = _work(job)
    matched = None
    if config.match_flops is not None:
        budget = flops_of_run(context.inputs[config.match_flops])
        matched = work.matched(budget, context.name, config.match_flops)
        job = replace(job, config=config.model_copy(update={"max_steps": matched["steps"]}))
        context.progress.say(f"  {context.name}: {matched_words(matched)}")
    accelerator, precision = open_accelerator(config.precision, context, first_batch(job))
    job.learned.to(accelerator.device)
    if teacher is not None:
        teacher.model.to(accelerator.device)  # pyright: ignore[reportArgumentType]
        teacher.prepare(
            TeacherInputs(
                step=context.name,
                train=job.train,
                max_length=config.max_length,
                loss=job.loss,
                seed=context.seed,
                device=accelerator.device,
                progress=context.progress,
            )
        )
        learn_squared_gradients(job)

    floor = _seconds_of_products(job, teacher, precision)
    place = Loop(job, accelerator, context).run()

    student.model.to("cpu")  # pyright: ignore[reportArgumentType]
    save_model(with_threshold(student, kept_validation(job, place)), context.folder / "model")
    metrics = _metrics(job, data, place, precision, floor, work.flops(place.step), matched)
    if (found := summary_of(data, tokens_of(student.folder))).splits:
        metrics["data"]["summary"] = found.as_json()
    return metrics


def _retokenized(
    config: TrainStep, wanted: Retokenized, context: StepContext, data: TextData
) -> TextData:
    """The data with its chunks' texts packed again, with the model's own tokenizer."""
    chunks = data.split("train").chunks
    if chunks is None:
        raise UsageError(
            f"{context.name}: data {wanted.source!r} is neither a corpus nor a selection, so its "
            f"texts always use the model's tokenizer; write data = {wanted.source!r}"
        )
    model = config.model
    word = model.tokenizer if isinstance(model, FromConfig) else referenced_model(model)
    view = retokenized(
        chunks,
        resolve_model(word or "", context.inputs, context.recipe_folder),
        wanted.max_length or config.max_length,
        context.scratch / "retokenized",
        stop_if_asked=lambda: context.stop_if_asked("a shard"),
        say=lambda what: context.progress.say(f"  {context.name}: retokenized {what}"),
    )
    return replace(data, splits={**data.splits, "train": view.split()})


def _without_prompts(config: TrainStep, context: StepContext, data: TextData) -> TextData:
    """The data with prompts excluded from the loss."""
    chunks = data.split("train").chunks
    if chunks is None or not all((shard.prompt[rows] > 0).all() for shard, rows in chunks.shards()):
        raise UsageError(
            f"{context.name}: learn_prompts = false, and the chunks of data {config.data_name!r} "
            'have no prompts; name a step with run = "generate", or leave learn_prompts out'
        )
    written = replace(chunks, learns_prompts=False)
    return replace(data, splits={**data.splits, "train": written.split()})


def _student(config: TrainStep, context: StepContext, data: TextData, seed: int) -> LoadedModel:
    folder = None
    if isinstance(config.model, FromConfig):
        plain, where = config.model.plain(), "model.config"
    else:
        folder = resolve_model(
            referenced_model(config.model) or "", context.inputs, context.recipe_folder
        )
        plain, where = read_json(folder / "config.json"), str(folder)
    if isinstance(config.model, ChangedModel) and config.model.static_width is not None:
        plain = static_config(plain, config.model.static_width)
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
    return student


def _job(
    config: TrainStep,
    context: StepContext,
    data: TextData,
    student: LoadedModel,
    teacher: Teacher | None,
    seed: int,
) -> Job:
    task = student.task
    assert task is not None
    readers = {"the model": student.model}
    names = task.input_names
    if teacher is not None:
        readers["the teacher"] = teacher.model
        names = tuple(dict.fromkeys([*names, *teacher.input_names]))
    loss = loss_of(
        config.text_losses, task.compared_as, student.model, readers.get("the teacher"), seed
    )
    train, validation = (
        ready(task, data, name, student, readers, names, context, labelled=labelled, seed=seed)
        for name, labelled in (
            ("train", task.needs_gold(taught=teacher is not None)),
            ("validation", task.kind.has_gold),
        )
    )
    if config.counts_padding:
        train = of_one_width(train, task)
    if isinstance(train, LabelledTexts) and task.kind.has_classes:
        loss.weigh(task.label_names, train.labels)
    _say_who_reads_labels(data, config, loss, context)
    if config.order == "corpus" and not isinstance(train, Streamed):
        raise UsageError(
            f'{context.name}: order = "corpus" is the order of a corpus\'s chunks, and data '
            f"{config.data_name!r} is none; leave order out"
        )
    for who, model in readers.items():
        if task.has_language_head and not has_plain_head(model):
            context.progress.warn(
                f"{context.name}: the language head of {who} ({type(model).__name__}) is not "
                "supported in blocks, so all logits of a micro-batch are in memory at once; lower "
                "micro_batch_size if they do not fit"
            )
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
        metrics=task.validated_by,
        rollouts=_rollouts(config, task.objective, student.folder, train, teacher, seed),
    )


def _say_who_reads_labels(
    data: TextData, config: TrainStep, loss: TotalLoss, context: StepContext
) -> None:
    """Warn if unlabelled texts are ignored, by all losses or by some."""
    if UNLABELLED_SPLIT not in data.splits:
        return
    unlabelled = len(data.splits[UNLABELLED_SPLIT])
    if not config.is_taught(data.kind):
        context.progress.warn(
            f"{context.name}: the {unlabelled:,} unlabelled rows of data {data.name!r} are not "
            "read, because no teacher predicts a class or a number for them"
        )
        return
    gold = [name for name, term in loss.made.items() if getattr(term, "unit", "") == "labelled"]
    if gold:
        labelled = len(data.split("train"))
        per_batch = config.batch_rows * labelled / (labelled + unlabelled)
        context.progress.warn(
            f"{context.name}: {', '.join(gold)} reads gold labels, which {labelled:,} of "
            f"{labelled + unlabelled:,} rows have ({per_batch:.1f} of a batch of "
            f"{config.batch_rows}), and is a mean over those alone; leave it out to weigh all rows "
            'alike: losses = [{ kind = "forward_kl" }]'
        )


def _rollouts(
    config: TrainStep,
    objective: str,
    folder: Path,
    train: Examples,
    teacher: Teacher | None,
    seed: int,
) -> Rollouts | None:
    if config.rollout_loss is None:
        return None
    assert isinstance(teacher, LiveTeacher), "a cache was refused"
    _, end_id = document_tokenizer(folder)
    return Rollouts(
        config.rollout_loss,
        TotalLoss([config.rollout_loss], objective),
        train,
        teacher,
        config.max_length,
        end_id,
        seed,
    )


def _work(job: Job) -> TrainingWork:
    tokens, written = _mean_lengths(job)
    teacher = job.teacher
    return TrainingWork(
        job.config,
        len(job.train),
        student=forward_flops(Cost(job.model), tokens, written),
        teacher=None if teacher is None else forward_flops(Cost(teacher.model), tokens, written),
        is_cached=teacher is not None and not isinstance(teacher, LiveTeacher),
        continued=continued_flops(
            job.config, Cost(job.model), None if teacher is None else Cost(teacher.model)
        ),
    )


def _mean_lengths(job: Job) -> tuple[int, int | None]:
    """Mean numbers of tokens per row: read by the first stack, and read by a decoder after it."""
    rows = len(job.train)
    if job.streamed is not None:
        written = job.streamed.written
        return round(job.train_tokens / rows) - (written or 0), written
    counts = job.train.counts(np.arange(rows))
    written = counts.get("decoder") if "encoder" in counts else None
    read = job.train_tokens if written is None else counts["encoder"]
    return round(read / rows), None if written is None else round(written / rows)


def _seconds_of_products(job: Job, teacher: Teacher | None, precision: Precision) -> float | None:
    """Seconds per token of the matrix products alone, on the first micro-batch. None: not measured,
    because rows of a table are too short to measure, or because tokens are sampled one by one."""
    if job.streamed is None or job.rollouts is not None:
        return None
    counts = job.train.counts(job.batches.at(0)[: job.evaluation_batch_size])
    tokens, written = tokens_read(counts), counts.get("decoder") if "encoder" in counts else None
    read = tokens - (written or 0)
    dtype = torch.bfloat16 if precision.name == "bf16" else torch.float32
    seconds = matmul_seconds(job.model, read, written, dtype=dtype)
    if isinstance(teacher, LiveTeacher):
        seconds += matmul_seconds(teacher.model, read, written, products=1, dtype=dtype)
    return seconds / tokens


def kept_step(job: Job, place: Place) -> int | None:
    """The step whose weights are saved as the result."""
    return place.best_step if job.config.keep == "best" else place.step


def kept_validation(job: Job, place: Place) -> dict[str, float]:
    """The latest validation metrics of the weights that are saved."""
    return next(
        line["validation"]
        for line in place.history
        if "validation" in line and line["step"] == kept_step(job, place)
    )


def _metrics(
    job: Job,
    data: TextData,
    place: Place,
    precision: Precision,
    floor: float | None,
    flops: CountedFlops,
    matched: Matched | None,
) -> TrainMetrics:
    """The step's metrics.

    Args:
        floor: seconds per token of the matrix products alone.
    """
    examples, seconds = place.step * job.config.batch_rows, place.seconds
    return {
        "objective": job.config.objective or data.objective,
        "num_params": sum(parameter.numel() for parameter in job.model.parameters()),
        "steps": place.step,
        "micro_batch_size": place.micro_batch_size or job.evaluation_batch_size,
        "epochs": round(place.step / len(job.batches), 4),
        "best_step": place.best_step,
        "kept_step": kept_step(job, place),
        "precision": precision.name,
        "precision_reason": precision.reason,
        "train_seconds": round(place.seconds, 3),
        "examples_per_s": round(examples / seconds, 2) if seconds else None,
        "tokens": place.tokens,
        "tokens_per_s": round(place.tokens / seconds, 2) if seconds else None,
        "flops": flops.all,
        "flops_non_embedding": flops.non_embedding,
        "matched": matched,
        "matmul_share": round(floor * place.tokens / seconds, 4) if floor and seconds else None,
        "validation": kept_validation(job, place),
        "data": {
            "name": data.name,
            "train_rows": len(job.train),
            "validation_rows": len(job.validation),
            "set_aside": data.set_aside_counts,
        },
        "losses": [term.model_dump(mode="json") for term in job.config.effective_losses],
    }
