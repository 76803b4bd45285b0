"""What a cached teacher hands out, and what it lets go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import caching
from attar.errors import ModelError
from attar.losses.term import Needs
from attar.tasks.task import Task
from attar.training.teaching.cached import load_cached
from attar.training.teaching.rows import Ragged
from attar.training.teaching.stored import token_places
from caching import run_cache

TASK = Task(
    objective="classification",
    label_names=("bad", "good"),
    max_length=24,
    input_names=("input_ids", "attention_mask", "token_type_ids"),
)


def test_behind_a_rows_end_its_last_token_stands_again() -> None:
    """And not the first token of the next row, or nothing at all behind the last."""
    ragged = Ragged(starts=np.array([0, 2, 5]), counts=np.array([2, 3, 1]))
    found = token_places(ragged, np.array([0, 1, 2]), 3)
    assert found.tolist() == [[0, 1, 1], [2, 3, 4], [5, 5, 5]]


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_answers_are_float32_and_the_live_teacher_is_let_go(tmp_path: Path, dtype: str) -> None:
    place = caching.prepare(tmp_path)
    run_cache(place, dtype=dtype)
    needs = Needs(hidden=True, teacher_logits=True)
    teacher = load_cached(place / "cached", TASK, needs=needs, seed=0)
    states = teacher.header.stacks["encoder"].num_blocks
    teacher._wanted, teacher._where = {"encoder": (0, states)}, np.arange(3)
    ids = torch.ones(3, 4, dtype=torch.int64)
    for is_ready in (False, True):
        assert teacher.loaded.model is teacher.model  # asked while its answers are compared
        teacher._is_ready = is_ready
        found = teacher({"input_ids": ids}, np.array([0, 1, 2]))
        assert {found.hidden["encoder"][n].dtype for n in (0, states)} == {torch.float32}
        assert found.logits.dtype == torch.float32
    with pytest.raises(AssertionError, match="let go"):
        _ = teacher.loaded


@pytest.mark.parametrize(
    ("needs", "what"),
    [
        (Needs(scores=True), "compares attention scores, which"),
        (Needs(qkv=True), "compares relations, which"),
        (Needs(scores=True, qkv=True), "compares attention scores and relations, which"),
    ],
)
def test_what_no_cache_keeps_is_refused_before_it_is_read(
    tmp_path: Path, needs: Needs, what: str
) -> None:
    with pytest.raises(ModelError, match=what):
        load_cached(tmp_path / "none", TASK, needs=needs, seed=0)
