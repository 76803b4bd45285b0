"""Open a teacher, live or cached, and check that it fits the student.

    live     a model folder: computes every batch            teaching/live
    cached   a `cache` step's folder: its outputs are read   teaching/cached

Both are called with a batch and its row numbers, and return the same `Outputs`. What can be
compared without data (tokens, classes, the model's task) is checked when a teacher is loaded; what
depends on the rows is checked in `prepare`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from attar.artifacts import verify
from attar.losses.targets import Outputs
from attar.losses.term import Needs
from attar.losses.total import needs_of
from attar.models.load import LoadedModel
from attar.models.sources.references import resolve_model
from attar.step import StepContext
from attar.training.config import TrainStep
from attar.training.teaching.cached import load_cached
from attar.training.teaching.header import is_cached
from attar.training.teaching.live import load_live, num_columns
from attar.training.teaching.teacher_inputs import TeacherInputs
from attar.training.teaching.tokens import require_same_tokens, require_same_words


class Teacher(Protocol):
    """A live or cached teacher."""

    input_names: tuple[str, ...]
    columns: int | None
    """Number of its logits that are used, from the first; None: all."""

    @property
    def loaded(self) -> LoadedModel:
        """The model, or the model behind the cache."""
        ...

    @property
    def model(self) -> PreTrainedModel: ...

    def prepare(self, wanted: TeacherInputs) -> None:
        """Check the rows and losses before the first step.

        Raises:
            AttarError: the teacher does not support these losses.
        """
        ...

    def __call__(self, inputs: Mapping[str, Tensor], rows: np.ndarray | None = None) -> Outputs:
        """Outputs for a batch, without gradient.

        Args:
            rows: row numbers of the batch in the training data.
        """
        ...


def open_teacher(
    config: TrainStep, context: StepContext, student: LoadedModel, seed: int
) -> Teacher | None:
    """The teacher of a step, ready for `prepare`; None: it has none, or no loss needs it.

    Raises:
        ModelError, ArtifactError: as `load_teacher`.
    """
    if config.teacher is None:
        return None
    needs = needs_of(config.effective_losses)
    if not needs.teacher:
        context.progress.warn(
            f"{context.name}: no loss uses teacher {config.teacher!r}; add a loss such as "
            "forward_kl, or remove the teacher"
        )
        return None
    folder = resolve_model(config.teacher, context.inputs, context.recipe_folder)
    if config.teacher not in context.inputs and is_cached(folder):
        verify(folder.parent)  # the engine has already verified those of this recipe
    teacher, notes = load_teacher(folder, student, needs=needs, seed=seed)
    for note in notes:
        context.progress.warn(f"{context.name}: {note}")
    return teacher


def load_teacher(
    folder: Path, student: LoadedModel, *, needs: Needs, seed: int
) -> tuple[Teacher, tuple[str, ...]]:
    """Load a teacher, or open a cache of its outputs; also return notes for the user.

    Args:
        folder: of a model; the model inside a cache stands for the cache.
        student: must have the same task and tokenizer.

    Raises:
        ModelError: the teacher has other tokens or classes, another task, or no head although its
            predictions are needed.
        ArtifactError: the cache is damaged.
    """
    task = student.task
    assert task is not None
    require_same_tokens(student.folder, folder)
    teacher: Teacher = (
        load_cached(folder.parent, task, needs=needs, seed=seed)
        if is_cached(folder)
        else load_live(folder, task, needs=needs, seed=seed)
    )
    notes = list(teacher.loaded.notes)
    if needs.teacher_logits and task.has_language_head:
        own, other = (num_columns(model) for model in (student.model, teacher.model))
        note = require_same_words(own, other, student.folder, folder)
        if note is not None:
            teacher.columns = own
            notes.append(note)
    return teacher, tuple(notes)
