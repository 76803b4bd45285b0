"""A teacher that answers in class order and tokens of the student, or is refused before anything is
computed.

A teacher whose classes stand in another order, or that reads other token ids, gives answers that
look right and teach nonsense. So classes are matched by name, and vocabularies and text pipelines
are compared token by token.

It runs in eval mode and without gradient, whatever the student does. Left out: teachers with
another tokenizer (their answers would have to be passed on as text), and cached answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.losses.targets import Outputs
from attar.losses.terms.term import Needs
from attar.models.load import LoadedModel, input_names_of, load_model
from attar.models.task import HEADS, TASK_FILE, Task
from attar.training.forward import fed, forward

SHOWN = 5
"""Differences quoted in a message: enough to recognise the cause."""
SECTIONS = ("normalizer", "pre_tokenizer", "post_processor")
"""Parts of `tokenizer.json` that decide which tokens a text becomes, beside the vocabulary."""


class Teacher:
    """A live teacher: asked for every batch anew."""

    def __init__(self, loaded: LoadedModel, needs: Needs) -> None:
        self.loaded = loaded
        self.input_names = input_names_of(loaded.model.config)
        self._needs = needs

    @property
    def model(self) -> PreTrainedModel:
        return self.loaded.model

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor], rows: np.ndarray | None = None) -> Outputs:
        """Its outputs for a batch, without gradient and without dropout.

        Args:
            rows: which training rows these are; a teacher that remembers its answers looks there.
        """
        self.model.eval()
        return forward(self.model, fed(inputs, self.input_names), self._needs)


def load_teacher(
    folder: Path,
    student_folder: Path,
    task: Task,
    *,
    needs: Needs,
    seed: int,
) -> Teacher:
    """Load a teacher whose classes are in the task's order.

    Args:
        student_folder: where the student's tokenizer is.
    Raises:
        ModelError: other tokens, other classes, or no head where its predictions are needed.
    """
    require_same_tokens(student_folder, folder)
    has_head = _has_head(folder)
    if needs.teacher_logits and not has_head:
        raise ModelError(
            f"teacher {folder} has no classification head, so it has no predictions to learn from; "
            "fine-tune it in a step of its own and name that step, or use hidden_mse alone"
        )
    loaded = load_model(folder, task=task if has_head else None, seed=seed)
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)
    return Teacher(loaded, needs)


def _has_head(folder: Path) -> bool:
    if (folder / TASK_FILE).is_file():
        return True
    architectures = _json(folder / "config.json").get("architectures") or [""]
    return str(architectures[0]).endswith(HEADS)


def require_same_tokens(student_folder: Path, teacher_folder: Path) -> None:
    """Refuse a pair of models that would read the same text as different token ids.

    Raises:
        ModelError: with what differs: tokens of one side only, other ids, other text pipelines.
    """
    student, teacher = (_json(f / "tokenizer.json") for f in (student_folder, teacher_folder))
    differences = _vocabulary_differences(_vocabulary(student), _vocabulary(teacher))
    differences += [
        f"the {section} differs"
        for section in SECTIONS
        if student.get(section) != teacher.get(section)
    ]
    if _rules(student) != _rules(teacher):
        differences.append("the rules that join pieces to tokens differ")
    if differences:
        raise ModelError(
            f"student ({student_folder}) and teacher ({teacher_folder}) read text differently: "
            f"{'; '.join(differences)}; use a student with the teacher's tokenizer, such as "
            '{ from = "<teacher>", keep_blocks = […] }'
        )


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}); get the model's files again") from error


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Token → id; a Unigram model stores a list of (token, score) instead."""
    stored = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(stored, list):
        stored = {token: i for i, (token, _) in enumerate(stored)}
    return stored | {t["content"]: t["id"] for t in tokenizer.get("added_tokens", [])}


def _rules(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in tokenizer.get("model", {}).items() if name != "vocab"}


def _vocabulary_differences(student: Mapping[str, int], teacher: Mapping[str, int]) -> list[str]:
    def quoted(tokens: list[str]) -> str:
        return ", ".join(map(repr, tokens[:SHOWN])) + (", …" if len(tokens) > SHOWN else "")

    differences: list[str] = []
    for side, own, other in (("student", student, teacher), ("teacher", teacher, student)):
        alone = sorted(own.keys() - other.keys())
        if alone:
            differences.append(
                f"{len(alone)} of {len(own)} tokens only the {side} has ({quoted(alone)})"
            )
    moved = [token for token in student if token in teacher and student[token] != teacher[token]]
    if moved:
        examples = [f"{t!r} is {student[t]} and {teacher[t]}" for t in moved[:SHOWN]]
        differences.append(f"{len(moved)} tokens have other ids ({', '.join(examples)})")
    return differences
