"""`run = "cache"`: store a teacher's outputs for every training row, for use by many students.

The problem: a teacher's outputs for a row are the same in every epoch, for every student and every
seed, yet are computed each time. The idea: compute them once, store what losses need, and read it
by memory map. Stored:

    logits          float32          one row per prediction (an example, or a labelled token);
                    or ≈ 95 bytes    for a token's distribution: some ids exactly, and the tail
    hidden states   bf16 or float32  one row per token, without padding

    bytes = predictions · (4 · classes, or a record) + Σ_stacks states · tokens · width · (2 or 4)

All sizes are known before the first forward pass, so disk space is checked first. Memory does not
grow with the outputs: each batch is written before the next. (The index takes 40 bytes per row.)

Not stored: attention scores and relations, which grow with the square of a text's length (12 heads,
128 tokens: 768 KiB per row and block) and take longer to read than to compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from attar.artifacts import MIB
from attar.data.load import data_of
from attar.errors import ModelError, UsageError
from attar.losses.states import resolve_layer_map
from attar.losses.term import Needs, Shape
from attar.models.architecture import config_of
from attar.models.sources.references import resolve_model
from attar.models.sources.safe_files import read_config
from attar.models.structure.families import FAMILIES
from attar.special_tokens import open_tokenizer, tokenizer_digest
from attar.step import StepContext
from attar.training.cache_config import UNIFORM, CacheMetrics, CacheStep, Sparse, States, unkept
from attar.training.config import TrainStep
from attar.training.forward import shape_of
from attar.training.objectives.preparing import ready, task_for
from attar.training.teaching.asking import Part, ask, require_disk
from attar.training.teaching.header import (
    CachedPart,
    CacheHeader,
    KeptStates,
    link_model,
    weights_hash,
)
from attar.training.teaching.live import LiveTeacher, load_live, num_columns
from attar.training.teaching.rows import batches_in_order, parts_of, survey
from attar.training.update.precision import open_accelerator

SHARED = {"objective", "template", "label_words", "max_length", "max_target_length"}
"""Settings that determine the content of a row, for the teacher and its students."""


@dataclass(frozen=True)
class Asked:
    """A teacher and its rows, with what is known in advance."""

    teacher: LiveTeacher
    parts: tuple[Part, ...]
    objective: str
    sparse: Sparse | None


def cache(config: CacheStep, context: StepContext) -> CacheMetrics:
    """Store a teacher's outputs for the train split; see the contract for files and metrics."""
    folder = resolve_model(config.teacher, context.inputs, context.recipe_folder)
    asked = _asked(config, context, folder)
    accelerator, precision = open_accelerator(
        config.precision, context, _first_batch(asked, config.batch_size)
    )
    header = _header(config, context, asked, precision.name)
    require_disk(header, context)
    asked.teacher.model.to(accelerator.device)  # pyright: ignore[reportArgumentType]
    began = time.monotonic()
    mass = ask(asked.teacher, asked.parts, header, config.batch_size, accelerator, context)
    seconds = time.monotonic() - began
    header.write(context.folder)
    link_model(folder, context.folder / "model")
    answers, sparse = sum(spec.num_bytes for spec in header.all_specs), asked.sparse
    is_kept = header.per_token and header.logits is not None
    record = 4 * (header.logits or 0) if header.codec is None else header.codec.record_bytes
    return {
        "objective": asked.objective,
        "rows": header.rows,
        "predictions": header.predictions,
        "logits": header.logits,
        "hidden_states": {stack: list(kept.states) for stack, kept in header.stacks.items()},
        "tokens": {
            stack: sum(part.tokens[stack] for part in header.parts) for stack in header.stacks
        },
        "dtype": header.dtype,
        "precision": precision.name,
        "precision_reason": precision.reason,
        "size_mib": round(answers / MIB, 3),
        "rows_per_s": round(header.rows / seconds, 2) if seconds else None,
        "bytes_per_token": record if is_kept else None,
        "distribution": None if sparse is None else sparse.model_dump(exclude_none=True),
        "mass_exact": None if sparse is None else round(mass / max(header.predictions, 1), 5),
    }


def _asked(config: CacheStep, context: StepContext, folder: Path) -> Asked:
    """Load the teacher and the data, and check that they fit."""
    data = data_of(context, config.data)
    lesson = TrainStep(model=config.teacher, data=config.data, **config.model_dump(include=SHARED))
    task = task_for(lesson, data, config_of(read_config(folder), str(folder)), folder, context.name)
    if problem := unkept(task.kind, logits=config.logits):
        raise UsageError(f"{context.name}: {problem}")
    needs = Needs(teacher_logits=config.logits, hidden=bool(config.hidden_states))
    teacher = load_live(folder, task, needs=needs, seed=context.seed)
    for note in teacher.loaded.notes:
        context.progress.warn(f"{context.name}: {note}")
    examples = ready(
        task,
        data,
        "train",
        teacher.loaded,
        {"the teacher": teacher.model},
        teacher.input_names,
        context,
        labelled=task.needs_gold(taught=True),
        seed=context.seed,
    )
    parts = tuple(
        Part(part, survey(part, config.batch_size, teacher.input_names))
        for part in parts_of(examples)
    )
    if problem := config.misfit(predicts_words=parts[0].rows.per_token):
        raise UsageError(f"{context.name}: {problem}")
    sparse = config.sparse(is_running=data.kind.is_running)
    return Asked(teacher, parts, task.objective, sparse)


def _first_batch(asked: Asked, batch_size: int) -> Callable[[bool], None]:
    """The teacher's outputs for the first batch in bf16 or float32, to time both formats."""
    examples = asked.parts[0].examples
    rows = batches_in_order(examples, batch_size)[0]
    device = asked.teacher.model.device
    inputs, _ = examples.batch(rows, device)

    def answer(is_bf16: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
            asked.teacher(inputs, rows)

    return answer


def _header(config: CacheStep, context: StepContext, asked: Asked, precision: str) -> CacheHeader:
    """The header, which is known before the teacher runs."""
    teacher, folder = asked.teacher, asked.teacher.loaded.folder
    shapes = cached_shape(config, teacher.model)
    kept = kept_states(config, context.name, shapes)
    return CacheHeader(
        teacher=config.teacher,
        weights=weights_hash(folder),
        tokenizer=tokenizer_digest(open_tokenizer(folder)),
        data=config.data,
        parts=tuple(
            CachedPart(
                rows=len(part.rows),
                predictions=part.rows.predictions.total,
                tokens={stack: part.rows.tokens[stack].total for stack in shapes},
            )
            for part in asked.parts
        ),
        seed=context.seed,
        max_length=config.max_length,
        precision="bf16" if precision == "bf16" else "fp32",
        dtype=config.dtype,
        logits=num_columns(teacher.model) if config.logits else None,
        sparse=asked.sparse,
        per_token=asked.parts[0].rows.per_token,
        stacks={
            stack: KeptStates(
                states=kept[stack],
                num_blocks=shape.num_blocks,
                hidden_size=shape.hidden_size,
            )
            for stack, shape in shapes.items()
        },
    )


def cached_shape(config: CacheStep, teacher: PreTrainedModel) -> Shape:
    """The stacks whose hidden states can be stored; empty for an unsupported family if none are
    requested.

    Raises:
        ModelError: hidden states are requested, and the family is not supported.
    """
    is_known = teacher.config.model_type in FAMILIES
    return shape_of(teacher) if config.hidden_states or is_known else {}


def kept_states(config: CacheStep, step: str, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Stack → indices of the hidden states to store.

    Raises:
        ModelError: the teacher has no such hidden state or stack.
    """
    asked = config.hidden_states
    by_stack: dict[str, States] = (
        {**asked} if isinstance(asked, dict) else dict.fromkeys(shape, asked)
    )
    unknown = sorted(set(by_stack) - set(shape))
    if unknown:
        raise ModelError(
            f"{step}: hidden_states names the {unknown[0]}, the teacher has {', '.join(shape)}"
        )
    return {
        stack: _numbers(by_stack.get(stack, ()), step, stack, found.num_blocks)
        for stack, found in shape.items()
    }


def _numbers(states: States, step: str, stack: str, num_blocks: int) -> tuple[int, ...]:
    if isinstance(states, str):
        uniform = UNIFORM.fullmatch(states)
        assert uniform is not None, "the settings were checked"
        layer_map = resolve_layer_map("uniform", int(uniform[1]), num_blocks, f"{step}: cache")
        return tuple(layer_map.values())
    beyond = [state for state in states if state > num_blocks]
    if beyond:
        raise ModelError(
            f"{step}: hidden_states has {', '.join(map(str, beyond))}, the {stack} of the teacher "
            f"has the states 0 (embedding output) to {num_blocks}"
        )
    return states
