"""The plan of a study counts the texts it watches and the rows that judge, and asks for no text
that it does not read."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from attar.analysis.config import AnalyzeStep, DisablingStep, JudgedStudy
from attar.artifacts import read_json
from attar.errors import DataError
from attar.models.cost import cost_from_config
from attar.planning import ModelPlan, PlannedTexts
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe
from attar.step import StepPlan
from tiny_recipe import write

STUDY = """
[steps.why]
run = "analyze"
model = "bert"
data = "films"
calibration = { examples = 16 }
"""
ROWS = 24
"""Of the validation split."""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
    file = write(tmp_path)
    text = file.read_text()
    file.write_text(text[: text.index("[steps.teacher]")] + STUDY)
    return file


def planned(recipe: Path, *overrides: str) -> StepPlan:
    (step,) = plan_recipe(load_recipe(recipe, overrides), recipe.parent).steps
    return step


def pass_over(recipe: Path, split: str, rows: int) -> int:
    """Operations of one forward pass over rows of a split."""
    config = read_json(recipe.parent / "bert" / "config.json")
    folder, data = recipe.parent, load_recipe(recipe).data
    model = ModelPlan(cost_from_config(config), folder / "bert")
    _, tokens = PlannedTexts(data, folder, seed=0).count("films", split, model)
    return rows * model.cost.flops(1, tokens)


@pytest.mark.parametrize(
    ("settings", "watched", "judged"),
    [
        (['steps.why.study="outliers"'], 1, 0),
        (['steps.why.study="outlier_tokens"'], 2, 0),
        (
            ['steps.why.study="clipping"', 'steps.why.kinds=["ffn_act"]', "steps.why.shares=[1.0]"],
            1,
            2,
        ),
        (['steps.why.study="disabling"'], 1, 23),
        (['steps.why.study="disabling"', 'steps.why.replacement=["zero"]'], 0, 12),
    ],
)
def test_the_work_is_the_texts_watched_and_the_rows_that_judge(
    recipe: Path, settings: list[str], watched: int, judged: int
) -> None:
    expected = watched * pass_over(recipe, "train", 16)
    expected += judged * pass_over(recipe, "validation", ROWS)
    assert planned(recipe, *settings).flops == expected


def test_every_study_with_rows_that_judge_says_how_many() -> None:
    """`_analyze` knows two kinds; a third one must be added there."""
    members = [get_args(member)[0] for member in get_args(get_args(AnalyzeStep)[0])]
    assert len(members) == 9
    words = {"model": "bert", "data": "films"}
    for member in members:
        given = {name: word for name, word in words.items() if name in member.model_fields}
        step = member(**given)
        assert bool(step.passes[1]) == isinstance(step, JudgedStudy | DisablingStep), member


@pytest.mark.parametrize(
    "settings",
    [
        ['steps.why.study="outliers"', "steps.why.activations=false"],
        ['steps.why.study="disabling"', 'steps.why.replacement=["zero"]'],
    ],
)
def test_a_study_that_reads_no_training_texts_needs_none(recipe: Path, settings: list[str]) -> None:
    many = "steps.why.calibration.examples=5000"
    assert planned(recipe, *settings, many) == planned(recipe, *settings)
    reads = "steps.why.criterion='activation_std'"
    with pytest.raises(DataError, match="calibration needs 5000 examples"):
        planned(recipe, *settings, reads, many)
