"""A live teacher: computes every batch, with its classes in the student's order.

A teacher whose classes are in another order would silently give wrong targets: its head is
reordered by class names, or an error is raised. Its task is compared before its weights are read.

It runs in eval mode and without gradient, whatever the student does. Not supported: teachers with
another tokenizer (their outputs would have to be passed on as text).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.losses.targets import Outputs
from attar.losses.term import Needs
from attar.models.architecture import config_of, require_causal
from attar.models.foreign import says_its_task, task_of
from attar.models.load import LoadedModel, input_names_of, load_model
from attar.models.sources.safe_files import read_config
from attar.numerics.logits import HeadLogits
from attar.tasks.labels import match_classes
from attar.tasks.task import TASK_FILE, Task
from attar.training.forward import fed, forward
from attar.training.teaching.teacher_inputs import TeacherInputs


class LiveTeacher:
    """Computes every batch.

    Args:
        columns: number of its logits to return, from the first; None: all.
    """

    def __init__(self, loaded: LoadedModel, needs: Needs, columns: int | None = None) -> None:
        self.loaded = loaded
        self.input_names = input_names_of(loaded.model.config)
        self.columns = columns
        self.needs = needs

    @property
    def model(self) -> PreTrainedModel:
        return self.loaded.model

    def prepare(self, wanted: TeacherInputs) -> None:
        """Do nothing: a live teacher is always ready."""

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor], rows: np.ndarray | None = None) -> Outputs:
        """Outputs for a batch, without gradient and dropout.

        Args:
            rows: row numbers of the batch; a cached teacher uses them for lookup.
        """
        self.model.eval()
        outputs = forward(self.model, fed(inputs, self.input_names), self.needs)
        if self.columns is None:
            return outputs
        logits = outputs.logits
        if isinstance(logits, HeadLogits):
            return replace(outputs, logits=logits.first(self.columns))
        assert isinstance(logits, Tensor)
        return replace(outputs, logits=logits[..., : self.columns])


def load_live(folder: Path, task: Task, *, needs: Needs, seed: int) -> LiveTeacher:
    """Load a teacher, with its classes in the task's order.

    Raises:
        ModelError: it has another task or other classes, or no head although its predictions are
            needed.
    """
    if needs.teacher_logits and task.kind.graph == "causal":
        require_causal(config_of(read_config(folder), str(folder)), f"teacher {folder}")
    fits = _fits(folder, task, needs)
    # a teacher's pooling and prefixes may differ from its student's
    loaded = load_model(folder, task=task if fits and not task.kind.embeds else None, seed=seed)
    require_decoder_texts(loaded.model, str(folder), student_writes=task.has_language_head)
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)
    return LiveTeacher(loaded, needs)


def require_decoder_texts(model: PreTrainedModel, teacher: str, *, student_writes: bool) -> None:
    """Raise ModelError for a T5 whose decoder would have no input. With a classification head, T5's
    decoder reads the text too, as BART's always does; with a language head, or none, it needs a
    target text, which rows with a class do not have.

    Args:
        model: the teacher; a model on the meta device is enough.
        teacher: its name, for the message.
        student_writes: whether the student has a language head, so that its rows have target texts.
    """
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    if model.config.model_type == "t5" and not classifies and not student_writes:
        raise ModelError(
            f"teacher {teacher} is a {type(model).__name__}, whose decoder continues a "
            "text, and the student's rows contain none; train the student to name classes by "
            'words (objective = "text_to_text"), or name a teacher with a classification head'
        )


def require_answer(folder: Path, needs: Needs) -> None:
    """Raise ModelError if the teacher has no head, but a loss needs its predictions or their
    sensitivity.
    """
    if says_its_task(folder):
        return
    if needs.teacher_logits:
        raise ModelError(
            f"teacher {folder} has no classification head, so it has no predictions to learn "
            "from; fine-tune it in its own step and name that step, or use hidden_mse alone"
        )
    architectures: list[str] = read_config(folder).get("architectures") or [""]
    if needs.gradients and not architectures[0].endswith("ForMaskedLM"):
        raise ModelError(
            f"teacher {folder} has no head, and sensitivity_mse weights its hidden states by how "
            "much its prediction depends on them; use hidden_mse instead, or fine-tune it in its "
            "own step and name that step"
        )


def _fits(folder: Path, task: Task, needs: Needs) -> bool:
    """Whether the teacher's head has the student's task.

    Args:
        needs: if predictions are not needed, only hidden states are used and the head may differ.
    """
    require_answer(folder, needs)
    if not says_its_task(folder):
        return False
    predicts = needs.teacher_logits
    own = task_of(folder)
    if needs.gradients and task.has_language_head and not own.has_language_head:
        raise ModelError(
            f"teacher {folder} predicts once per text, the student once per token, so "
            "sensitivity_mse has no per-token sensitivity; use hidden_mse instead, or a teacher "
            "with a language head"
        )
    is_ours = (folder / TASK_FILE).is_file()
    differences = _differences(own, task, is_ours=is_ours)
    if differences and predicts:
        raise ModelError(
            f"teacher {folder} has another task than the student: "
            f"{'; '.join(differences)}; their predictions cannot be compared. Name a teacher of "
            "the student's objective, or use losses on hidden states only, such as hidden_mse"
        )
    names_are_said = is_ours or "id2label" in read_config(folder)
    match = match_classes(own.label_names, task.label_names)
    other_classes = names_are_said and match is None
    return not differences and (predicts or not other_classes)


def _differences(teacher: Task, student: Task, *, is_ours: bool) -> list[str]:
    """Differences between the tasks of two models; class names are matched with the head.

    Args:
        is_ours: whether the teacher's folder has a task.json, and not only a head.
    """
    if teacher.has_language_head and student.has_language_head:
        if not is_ours:  # a pretrained language model can be prompted for any task
            return []
        pairs = (
            ("it is for", teacher.objective, student.objective),
            ("its template is", repr(teacher.template), repr(student.template)),
            ("its label words are", list(teacher.label_words), list(student.label_words)),
        )
    else:
        pairs = (
            ("it is for", _in_words(teacher), _in_words(student)),
            ("its prefixes are", _prefixes(teacher), _prefixes(student)),
        )
    return [f"{what} {one}, the student's: {other}" for what, one, other in pairs if one != other]


def _in_words(task: Task) -> str:
    return f"{task.objective} by words" if task.has_language_head else task.objective


def _prefixes(task: Task) -> list[str]:
    """The prefixes before texts. Both models read the same tokens, so they must be the same."""
    embedding = task.embedding
    return [] if embedding is None else [embedding.query_prefix, embedding.passage_prefix]


def num_columns(model: PreTrainedModel) -> int:
    """Number of a model's logits: classes, 1 for a score, or the size of its vocabulary."""
    head: Any = model.get_output_embeddings()
    return int(model.config.num_labels or 1) if head is None else int(head.weight.shape[0])
