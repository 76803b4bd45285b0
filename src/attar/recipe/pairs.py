"""Whether a student can learn from its teacher, asked before either of them exists.

A step finds out when it begins, and by then its teacher may have been trained for hours. Tokenizers
lie where the models come from, and shapes follow from configs, so the same questions are asked of
plans, in the step's own words; of a cache too, whether it will keep what the losses compare with.
Left to the step: the classes of the two heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from attar.errors import ModelError
from attar.losses.total import needs_of
from attar.recipe.plan_texts import ModelPlan, PlannedTexts
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep
from attar.training.limits import require_positions
from attar.training.teaching.cache import cached_shape, kept_states
from attar.training.teaching.header import Content
from attar.training.teaching.live import (
    num_columns,
    require_answer,
    require_decoder_texts,
)
from attar.training.teaching.pairing import loss_of
from attar.training.teaching.tokens import require_same_tokens, require_same_words


@dataclass(frozen=True)
class PlannedTeacher:
    """Who will answer, live or through a cache."""

    model: ModelPlan
    folder: Path | None
    """Of a model that is there; None: a step will make it, with a head."""
    cache: str | None = None
    """The step that asks it once for its students; None: they ask it themselves."""
    kept: Content | None = None
    """What that cache will hold."""


def require_pair(
    name: str, step: TrainStep, texts: PlannedTexts, student: ModelPlan, teacher: PlannedTeacher
) -> None:
    """Refuse a pair that the step would refuse.

    Args:
        name: of the step.
        texts: the recipe's data.
    Raises:
        ModelError: the step's own message, behind its name.
    """
    if not needs_of(step.effective_losses).teacher:
        return  # the step says that nothing compares with the teacher, and leaves it out
    try:
        _compare(step, texts, student, teacher)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def _compare(
    step: TrainStep, texts: PlannedTexts, student: ModelPlan, teacher: PlannedTeacher
) -> None:
    needs = needs_of(step.effective_losses)
    own, other = student.cost.model, teacher.model.cost.model
    folders = (student.tokenizer_folder, teacher.model.tokenizer_folder)
    require_same_tokens(*folders)
    if teacher.folder is not None:
        require_answer(teacher.folder, needs)
    require_positions(other, step.max_length, "the teacher")
    writes = texts.head(step.data, step.objective).predicts_words
    if teacher.cache is None:
        require_decoder_texts(other, step.teacher or "", student_writes=writes)
    both_write = writes and other.get_output_embeddings() is not None
    if needs.teacher_logits and both_write:
        require_same_words(num_columns(own), num_columns(other), *folders)
    # Projections are drawn, and thrown away here.
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        objective = texts.loaded(step.data).objective
        loss = loss_of(step.effective_losses, objective, own, other, seed=0)
    if teacher.kept is not None:
        teacher.kept.require(loss, repr(teacher.cache))


def content_of(name: str, step: CacheStep, teacher: ModelPlan) -> Content:
    """What a cache step will keep of its teacher's answers.

    Raises:
        ModelError: hidden states that the teacher has not.
    """
    return Content(step.logits, kept_states(step, name, cached_shape(step, teacher.cost.model)))
