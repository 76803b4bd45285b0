"""A live teacher answers alike every time and gives no gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attar.losses.terms.term import Needs
from attar.models.load import load_model
from attar.models.task import Task
from attar.training.teachers import Teacher, load_teacher

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
