"""The planned work of a study is the work it does."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BertForMaskedLM

import simulated
import tiny
from attar.analysis.config import LeaveOneKindStep
from attar.analysis.plan import study_passes
from attar.errors import ModelError
from attar.models.load import load_model
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe
from studied import run_study
from tiny_recipe import write

STEP = LeaveOneKindStep(model="teacher", data="texts")
STUDY = """
[steps.why]
run = "analyze"
model = "classifier"
data = "films"
study = "leave_one_kind"
calibration = { examples = 16 }
"""


@pytest.mark.parametrize(("family", "num_kinds"), [("bert", 12), ("bart", 18)])
def test_a_model_is_judged_twice_for_each_kind_of_tensor_it_has(
    tmp_path: Path, family: str, num_kinds: int
) -> None:
    """Its rows are a kind each; float and all quantized come on top."""
    rows = run_study(tmp_path, "leave_one_kind", family=family, num_rows=4).rows
    assert len(rows) == num_kinds
    model = load_model(tmp_path / "float").model
    assert study_passes(STEP, model) == (1, 2 + 2 * num_kinds)
    assert study_passes(STEP, model)[1] <= STEP.passes[1]


def test_the_plan_counts_the_kinds_of_the_model_it_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
    recipe = write(tmp_path)
    text = recipe.read_text()
    recipe.write_text(text[: text.index("[steps.teacher]")] + STUDY)
    simulated.write_float_model(tmp_path / "classifier")

    def of_a_row(*study: str) -> int:
        one, two = (
            plan_recipe(load_recipe(recipe, [f"steps.why.num_rows={rows}", *study]), tmp_path)
            for rows in (5, 6)
        )
        return two.steps[0].flops - one.steps[0].flops

    clipping = (
        'steps.why.study="clipping"',
        'steps.why.kinds=["ffn_act"]',
        "steps.why.shares=[1.0]",
    )
    assert of_a_row() == 26 * of_a_row(*clipping) / 2  # float and one value


def test_a_model_without_sites_is_refused_by_the_plan() -> None:
    masked = BertForMaskedLM(tiny.tiny_config("bert"))
    with pytest.raises(ModelError, match=r"no site covers what cls\.predictions\.decoder"):
        study_passes(STEP, masked)
