"""Cost of training, and a check that the student can learn from its teacher.

    train     flops: `work`, and a forward pass over the validation texts for each evaluation
    memory    weights, gradients and AdamW's two moments: 16 bytes per parameter, with Adafactor 8;
              a teacher: 4; activations kept for the backward pass, in float32
    disk      two checkpoints of 12 bytes per parameter while training (Adafactor: 4), 4 afterwards

The step itself would notice a mismatch only when it begins, after its teacher has been trained for
hours. Tokenizers and configs are known earlier, so the same checks run here, with the same
messages. Only the classes of the two heads are left to the step. Tokens of a template are not
counted.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from attar.artifacts import MIB
from attar.config import in_recipe_folder
from attar.data.corpus.masking import Masker
from attar.data.corpus.spans import Corruption
from attar.data.prompts import INPUTS
from attar.data.tables import UNLABELLED_SPLIT
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError, UsageError
from attar.losses.total import needs_of
from attar.models.architecture import require_causal
from attar.models.cost import Cost, flops_by_part
from attar.models.load import check_length
from attar.planning import (
    OPEN_SECONDS,
    RUNTIME_MIB,
    SAMPLED_TEXTS,
    ModelPlan,
    PlanContext,
    PlannedTexts,
)
from attar.special_tokens import open_tokenizer, tokenizer_digest
from attar.step import StepPlan
from attar.tasks.denoising import PUBLISHED, mean_lengths
from attar.tasks.masking import Masking
from attar.tasks.table import KINDS
from attar.training.config import MOMENT_BYTES, Matched, Retokenized, TrainStep
from attar.training.objectives.preparing import label_words_for
from attar.training.objectives.shards import require_length, require_same
from attar.training.objectives.text_pairs import nearest_words
from attar.training.teaching.header import Content, is_cached
from attar.training.teaching.live import (
    num_columns,
    require_answer,
    require_decoder_texts,
)
from attar.training.teaching.teacher_inputs import loss_of
from attar.training.teaching.tokens import require_same_tokens, require_same_words
from attar.training.update.precision import choose_precision, device_here
from attar.training.work import (
    TrainingWork,
    continued_flops,
    flops_of_run,
    forward_flops,
    matched_words,
)


@dataclass(frozen=True)
class PlannedTeacher:
    """The planned teacher, live or cached."""

    model: ModelPlan
    folder: Path | None
    """Folder of an existing model; None: a step will make it, with a head."""
    cache: str | None = None
    """The cache step; None: a live teacher."""
    kept: Content | None = None
    """The content of that cache."""


def plan_train(config: TrainStep, context: PlanContext) -> StepPlan:
    """Plan a training step.

    Raises:
        ModelError: texts longer than the model reads, or a teacher that does not fit.
    """
    texts = context.texts
    head = texts.head(config.data_name, config.objective)
    model = context.model(config.model, head, config.max_length)
    # A model from another step may have another max_length.
    model = replace(model, max_length=config.max_length)
    check_length(model.cost.model.config, config.max_length, f"{context.name}: the model")
    context.models[context.name] = model
    read = _read(config, context, model)
    rows, tokens, written = read.rows, read.tokens, read.written
    cut = replace(model, max_length=read.cut or model.max_length)
    validation_rows, _ = texts.count(config.data_name, "validation", cut)
    teacher = _teacher(config, context, model)
    live = None if teacher is None or teacher.cache else teacher.model.cost
    work = TrainingWork(
        config,
        rows,
        student=forward_flops(model.cost, tokens, written),
        teacher=None if teacher is None else forward_flops(teacher.model.cost, tokens, written),
        is_cached=teacher is not None and live is None,
        continued=continued_flops(config, model.cost, live),
    )
    matched = _matched(work, context)
    steps = config.num_steps(rows, read.total) if matched is None else matched["steps"]
    evaluations = min(config.evaluations + len(config.evaluate_at_tokens), steps)
    # the teacher's FLOPs are in the plan of the cache
    own = work if live else replace(work, teacher=None)
    flops = own.flops(steps).all + evaluations * validation_rows * work.student.all
    micro_batch = config.micro_batch_size or config.batch_rows
    moments = MOMENT_BYTES[config.optimizer]
    memory = (8 + moments) * model.cost.num_params
    memory += 0 if live is None else 4 * live.num_params
    text_mib = model.activation_mib(config.max_length)
    device = device_here()
    precision = choose_precision(config.precision, device).name
    return StepPlan(
        num_params=model.cost.num_params,
        flops=flops,
        memory_mib=RUNTIME_MIB + memory / MIB + micro_batch * text_mib,
        disk_mib=model.size_mib + 2 * (4 + moments) * model.cost.num_params / MIB,
        seconds=OPEN_SECONDS + context.seconds(training=flops, precision=precision, device=device),
        counts={
            "data.train_rows": rows,
            "data.validation_rows": validation_rows,
            "steps": steps,
            "num_params": model.cost.num_params,
        },
        passes=steps / max(-(-rows // config.batch_rows), 1),
        texts_at_once=micro_batch,
        text_mib=text_mib,
        lowered_by="micro_batch_size",
        is_estimate=read.is_estimate,
        training=work.flops(steps),
        note="; ".join(
            [
                *([] if matched is None else [matched_words(matched)]),
                *_apart(model.cost, tokens, written),
            ]
        ),
    )


def _matched(work: TrainingWork, context: PlanContext) -> Matched | None:
    """The number of steps that `match_flops` gives; None if it is not set.

    Raises:
        UsageError: the budget is too small for one step.
        ArtifactError: the FLOPs of the matched step are unknown.
    """
    word = work.config.match_flops
    if word is None:
        return None
    planned = context.plans.get(word)
    budget = None if planned is None else planned.training
    outside = in_recipe_folder(word, context.recipe_folder)
    return work.matched(budget or flops_of_run(outside), context.name, word)


def _apart(cost: Cost, tokens: int, written: int | None) -> list[str]:
    """The share of each stack of an encoder-decoder in the student's FLOPs."""
    parts = flops_by_part(cost.model, 1, tokens, written)
    if not {"encoder", "decoder"} <= parts.keys():
        return []
    total = sum(parts.values())
    said = [f"{part} {flops / total:.0%}" for part, flops in parts.items()]
    return [f"of the student's FLOPs: {', '.join(said)}"]


@dataclass(frozen=True)
class _Read:
    """What a step reads of its training rows."""

    total: int
    """Total number of tokens."""
    rows: int
    tokens: int
    """Mean number of tokens per row."""
    is_estimate: bool
    written: int | None = None
    """Number of decoder input tokens per row, in an encoder-decoder; None: as many as are read."""
    cut: int | None = None
    """Tokens of text after which running text is cut; None: as many as the model reads."""


def _read(config: TrainStep, context: PlanContext, model: ModelPlan) -> _Read:
    """The rows that a step will train on.

    Raises:
        ModelError, UsageError: the step would reject the chunks.
    """
    kind = KINDS[config.objective or context.texts.loaded(config.data_name).objective]
    if not kind.hides:
        return _read_rows(config, context, model)
    return (_read_spans if kind.hides_spans else _read_masked)(config, context, model)


def _read_spans(config: TrainStep, context: PlanContext, model: ModelPlan) -> _Read:
    """For running text with hidden spans."""
    denoisers = config.denoisers or PUBLISHED
    with _said_of(context.name):
        cut = Corruption.of(denoisers, config.max_length, model.tokenizer_folder, seed=0).raw_tokens
        total, is_estimate = _cut_anew(config, context, model)
    rows, lengths = -(-total // cut), mean_lengths(denoisers, cut)
    read, written = map(round, lengths)
    return _Read(round(rows * sum(lengths)), rows, read, is_estimate, written, cut)


def _read_masked(config: TrainStep, context: PlanContext, model: ModelPlan) -> _Read:
    """For running text with masked tokens."""
    with _said_of(context.name):
        masker = Masker.of(
            config.masking or Masking(), config.max_length, model.tokenizer_folder, seed=0
        )
        total, is_estimate = _cut_anew(config, context, model)
    rows = -(-total // masker.text_tokens)
    read = total + rows * masker.added
    return _Read(read, rows, round(read / rows), is_estimate, cut=masker.text_tokens)


def _cut_anew(config: TrainStep, context: PlanContext, model: ModelPlan) -> tuple[int, bool]:
    """Number of tokens of running text that is cut regardless of documents and chunks, and whether
    it is an estimate."""
    texts = context.texts
    chunks = texts.chunks_of(config.data_name, config.part)
    if chunks is None:
        return texts.running_tokens(config.data_name, "train", model), False
    if isinstance(config.data, str):
        _require_tokenizer(config.data, config, context, model)
    return chunks.tokens + chunks.chunks, not chunks.is_exact


def _require_tokenizer(
    corpus: str, config: TrainStep, context: PlanContext, model: ModelPlan
) -> None:
    digest = tokenizer_digest(open_tokenizer(context.corpus(corpus).tokenizer.folder))
    require_same(corpus, digest, model.tokenizer_folder, config.max_length)


@contextmanager
def _said_of(step: str) -> Generator[None]:
    """Prefix error messages with the step's name."""
    try:
        yield
    except (ModelError, UsageError) as error:
        raise type(error)(f"{step}: {error}") from error


def count_taught(texts: PlannedTexts, data: str, model: ModelPlan) -> tuple[int, int]:
    """Number of rows that a teacher labels (train and unlabelled), and their mean number of
    tokens."""
    counted = [texts.count(data, split, model) for split in ("train", UNLABELLED_SPLIT)]
    rows = sum(count for count, _ in counted)
    tokens = sum(count * length for count, length in counted)
    return rows, max(1, round(tokens / max(rows, 1)))


def _read_rows(config: TrainStep, context: PlanContext, model: ModelPlan) -> _Read:
    """For rows or chunks that are used unchanged."""
    texts = context.texts
    chunks = texts.chunks_of(config.data_name, config.part)
    if chunks is not None and isinstance(config.data, str):
        with _said_of(context.name):
            _require_tokenizer(config.data, config, context, model)
            longest = context.corpus(config.data).max_length
            require_length(config.data, longest, config.max_length)
        return _Read(chunks.tokens, chunks.chunks, chunks.mean_tokens, not chunks.is_exact)
    length = config.data.max_length if isinstance(config.data, Retokenized) else None
    model = replace(model, max_length=length or model.max_length)
    if config.is_taught(texts.loaded(config.data_name).kind):
        rows, tokens = count_taught(texts, config.data_name, model)
    else:
        rows, tokens = texts.count(config.data_name, "train", model)
    written = _written(config, context, model)
    return _Read(rows * (tokens + (written or 0)), rows, tokens, chunks is not None, written)


def _written(config: TrainStep, context: PlanContext, model: ModelPlan) -> int | None:
    """Mean number of tokens of a target or label word; None: nothing is generated."""
    data = context.texts.loaded(config.data_name)
    if KINDS[config.objective or data.objective].graph != "encoder_decoder":
        return None
    split, longest = data.split("train"), config.max_target_length
    if data.kind.writes:
        targets = list(split.targets or ())
    else:
        longest, labels = config.max_length, split.labels
        words = label_words_for(config, data, context.name)
        if data.kind.is_score:
            labels = nearest_words(labels[~np.isnan(labels)], np.array(words, dtype=np.float64))
        targets = [words[label] for label in labels if label >= 0]
    sampled = [(text,) for text in targets[:: max(1, len(targets) // SAMPLED_TEXTS)]]
    if not sampled:
        return None
    encoder = TextEncoder.from_folder(model.tokenizer_folder, longest, INPUTS)
    return max(1, round(float(encoder.encode(sampled).lengths.mean())))


def _teacher(config: TrainStep, context: PlanContext, student: ModelPlan) -> PlannedTeacher | None:
    """The teacher; None: there is none, or no loss needs it.

    Raises:
        ModelError: the student cannot learn from it.
    """
    if config.teacher is None:
        return None
    teacher = context.caches.get(config.teacher) or planned_teacher(config.teacher, context)
    require_pair(context.name, config, context.texts, student, teacher)
    return teacher if needs_of(config.effective_losses).teacher else None


def planned_teacher(word: str, context: PlanContext) -> PlannedTeacher:
    model = context.model(word, None, 128)
    if word in context.models:
        return PlannedTeacher(model, None)
    folder = model.tokenizer_folder
    return PlannedTeacher(model, folder, cache=word if is_cached(folder) else None)


def require_pair(
    name: str, config: TrainStep, texts: PlannedTexts, student: ModelPlan, teacher: PlannedTeacher
) -> None:
    """Raise ModelError if the step would reject this student and teacher.

    Args:
        name: of the step.
        texts: the recipe's data.
    """
    if not needs_of(config.effective_losses).teacher:
        return  # the step warns that no loss uses the teacher, and ignores it
    with _said_of(name):
        _compare(config, texts, student, teacher)


def _compare(
    config: TrainStep, texts: PlannedTexts, student: ModelPlan, teacher: PlannedTeacher
) -> None:
    needs = needs_of(config.effective_losses)
    own, other = student.cost.model, teacher.model.cost.model
    folders = (student.tokenizer_folder, teacher.model.tokenizer_folder)
    require_same_tokens(*folders)
    if teacher.folder is not None:
        require_answer(teacher.folder, needs)
    check_length(other.config, config.max_length, "the teacher", made_for=True)
    objective = config.objective or texts.loaded(config.data_name).objective
    if needs.teacher_logits and KINDS[objective].graph == "causal":
        require_causal(other.config, f"teacher {config.teacher!r}")
    writes = texts.head(config.data_name, config.objective).words is not None
    if teacher.cache is None:
        require_decoder_texts(other, config.teacher or "", student_writes=writes)
    both_write = writes and other.get_output_embeddings() is not None
    if needs.teacher_logits and both_write:
        require_same_words(num_columns(own), num_columns(other), *folders)
        if teacher.kept is not None:
            teacher.kept.require_columns(num_columns(own), num_columns(other), repr(teacher.cache))
    # random projections are drawn for the comparison and discarded
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        loss = loss_of(config.effective_losses, objective, own, other, seed=0)
    if teacher.kept is not None:
        teacher.kept.require(loss, repr(teacher.cache))
