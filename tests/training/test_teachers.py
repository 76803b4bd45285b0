"""A live teacher answers alike every time and gives no gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import language_runs
import simulated
from attar.errors import ModelError
from attar.losses.term import Needs
from attar.models.load import load_model
from attar.tasks.task import Task
from attar.training.teachers import Teacher, load_teacher
from attar.training.teaching.live import load_live

TASK = Task(
    objective="classification",
    label_names=("bad", "good"),
    max_length=16,
    input_names=("input_ids", "attention_mask", "token_type_ids"),
)
INPUTS = {
    "input_ids": torch.tensor([[2, 7, 9, 3]]),
    "attention_mask": torch.ones(1, 4, dtype=torch.int64),
    "token_type_ids": torch.zeros(1, 4, dtype=torch.int64),
}


@pytest.fixture
def teacher(tiny_bert: Path) -> Teacher:
    student = load_model(tiny_bert, task=TASK)
    needs = Needs(teacher_logits=True, hidden=True)
    return load_teacher(tiny_bert, student, needs=needs, seed=0)[0]


def test_a_teacher_left_in_train_mode_still_answers_without_dropout(teacher: Teacher) -> None:
    calm = teacher(INPUTS)
    teacher.model.train()
    assert torch.equal(teacher(INPUTS).logits, calm.logits)


def test_a_teacher_has_no_gradient_and_shows_its_hidden_states(teacher: Teacher) -> None:
    outputs = teacher(INPUTS)
    assert not outputs.logits.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert [tuple(state.shape) for state in outputs.hidden["encoder"]] == [(1, 4, 32)] * 3


def test_a_teacher_takes_only_the_inputs_it_knows(teacher: Teacher) -> None:
    more = {**INPUTS, "something_of_the_student": torch.zeros(1, 4)}
    assert torch.equal(teacher(more).logits, teacher(INPUTS).logits)


def test_a_t5_that_writes_is_refused_as_teacher_of_a_classifier(tmp_path: Path) -> None:
    """It would stop in its first forward pass: nothing was written that its decoder could read."""
    folder = language_runs.write_random(tmp_path / "t5", "t5", **language_runs.WORDED)
    inside = Needs(hidden=True)
    with pytest.raises(ModelError, match=r"T5ForCondit\w+, whose decoder continues a text"):
        load_live(folder, TASK, needs=inside, seed=0)
    classifier = simulated.write_float_model(tmp_path / "classifier", "t5")
    outputs = load_live(classifier, TASK, needs=inside, seed=0)(INPUTS)
    assert set(outputs.hidden) == {"encoder", "decoder"}
