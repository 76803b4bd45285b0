"""A cache's size is known before its teacher is: what is planned is what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from attar.artifacts import read_result
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe
from attar.recipe.run import run_recipe
from attar.training.cache_config import Sparse
from attar.training.cache_plan import cache_bytes
from attar.training.teaching.header import Content, codec_of
from tiny_recipe import write

CACHE = """
[steps.answers]
run = "cache"
teacher = "teacher"
data = "films"
max_length = 24
hidden_states = "uniform:1"
dtype = "fp32"
"""
ALONE = "steps.student.teacher='answers'"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
    file = write(tmp_path)
    text = file.read_text()
    file.write_text(text[: text.index("[steps.int8]")] + CACHE)
    return file


def test_a_cached_teacher_is_not_paid_for_by_its_students(recipe: Path) -> None:
    def flops(*overrides: str) -> dict[str, int]:
        plan = plan_recipe(load_recipe(recipe, overrides), recipe.parent)
        return {step.name: step.flops for step in plan.steps}

    live, cached, untaught = flops(), flops(ALONE), flops("steps.student.losses=[]", ALONE)
    assert cached["student"] == untaught["student"] < live["student"]
    assert live["student"] - cached["student"] == 2 * 8 * cached["answers"] / 48  # texts / rows


def test_what_is_written_is_what_was_planned(recipe: Path) -> None:
    plan = plan_recipe(load_recipe(recipe, (ALONE,)), recipe.parent)
    run_recipe(recipe, overrides=(ALONE,), out=recipe.parent / "runs", quiet=True)
    made = read_result(recipe.parent / "runs" / "tiny" / "answers").metrics
    planned = next(step.disk_mib for step in plan.steps if step.name == "answers")
    assert made["size_mib"] == pytest.approx(planned, rel=0.1)  # mean lengths are rounded


@pytest.mark.parametrize(
    ("states", "count"),
    [({"encoder": (0, 2)}, 2 * 5), ({"encoder": (0,), "decoder": (0, 1)}, 5 + 2 * 4)],
)
def test_bytes_are_states_times_tokens_times_width(
    states: dict[str, tuple[int, ...]], count: int
) -> None:
    read = {"tokens": 5, "written": 4, "predicted": 4, "columns": 100}
    assert cache_bytes(Content(False, states), 8, "bf16", **read) == count * 8 * 2
    assert cache_bytes(Content(False, states), 8, "fp32", **read) == count * 8 * 4
    assert cache_bytes(Content(True, {}), 8, "bf16", **read) == 4 * 100 * 4
    sparse = Sparse(exact=32, tail_draws=8)
    record = codec_of(sparse, 100).record_bytes
    assert cache_bytes(Content(True, {}, sparse), 8, "bf16", **read) == 4 * record
