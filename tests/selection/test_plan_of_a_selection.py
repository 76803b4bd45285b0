"""A plan counts what a selection's near duplicates and diversity cost, and only where asked."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpora
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe
from attar.selection.plan import MINHASH_BYTES
from attar.step import StepPlan

RECIPE = corpora.RECIPE.partition("[steps.student]")[0]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.write_recipe(tmp_path_factory.mktemp("planned"), RECIPE)


def _planned(recipe: Path, *settings: str) -> dict[str, StepPlan]:
    plan = plan_recipe(load_recipe(recipe, list(settings)), recipe.parent)
    return {step.name: step for step in plan.steps}


def test_diversity_is_three_samples_through_the_encoder(recipe: Path) -> None:
    plain = _planned(recipe)["kept"]
    setting = 'steps.kept.diversity={model="model", chunks=50, max_length=24}'
    steps = _planned(recipe, setting)
    assert plain.flops == 0
    teacher = steps["by_teacher"]
    chunks = teacher.disk_mib * 2**20 / 32
    assert steps["kept"].flops == pytest.approx(3 * 50 * teacher.flops / chunks, rel=0.35)
    assert steps["kept"].memory_mib > plain.memory_mib


def test_near_duplicates_take_memory_for_each_chunk(recipe: Path) -> None:
    plain = _planned(recipe)["kept"]
    for setting in ("0.8", "{threshold=0.8, filter=false}"):
        counted = _planned(recipe, f"steps.kept.near_duplicates={setting}")["kept"]
        chunks = plain.disk_mib * 2**20 / 32
        added = (counted.memory_mib - plain.memory_mib) * 2**20
        assert added == pytest.approx(chunks * MINHASH_BYTES)
