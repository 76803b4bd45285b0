"""Learning from the rows that an augment step made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
import training_runs
from attar.distillation.config import AugmentStep
from attar.distillation.run import augment
from attar.errors import DataError, RecipeError, UsageError
from attar.recipe.load import parse_recipe

ROWS = 48
COPIES = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = training_runs.prepare(tmp_path_factory.mktemp("made"))
    tiny.write_tiny_masked_lm(folder / "lm")
    settings = {"model": "lm", "data": "films", "copies": COPIES, "top": 5, "max_length": 24}
    for name, keep in (("unlabelled", False), ("labelled", True)):
        context = training_runs.context_for(folder / name, recipe_folder=folder)
        context.scratch.mkdir(parents=True, exist_ok=True)
        augment(AugmentStep(**settings, keep_labels=keep, precision="fp32"), context)
    return folder


def train(place: Path, out: Path, made: str, **settings: Any) -> dict[str, Any]:
    inputs = {"made": place / made / "out"}
    return training_runs.run_training(
        out,
        recipe_folder=place,
        inputs=inputs,
        augmentation="made",
        max_steps=3,
        evaluations=1,
        **settings,
    )


def test_made_rows_are_learned_from_with_a_teacher(place: Path, tmp_path: Path) -> None:
    losses = [{"kind": "forward_kl"}, {"kind": "cross_entropy"}]
    metrics = train(place, tmp_path, "unlabelled", teacher="bert", losses=losses)
    assert metrics["data"]["train_rows"] == ROWS * (1 + COPIES)


def test_without_a_teacher_made_rows_need_labels(place: Path, tmp_path: Path) -> None:
    assert train(place, tmp_path, "labelled")["data"]["train_rows"] == ROWS * (1 + COPIES)
    with pytest.raises(UsageError, match=r"the 96 rows of 'made' have no labels.*keep_labels"):
        train(place, tmp_path / "none", "unlabelled")


def test_rows_made_from_others_are_refused(place: Path, tmp_path: Path) -> None:
    from attar.data.config import FilesData

    fewer = FilesData(path="films", text="text", train_rows=ROWS - 1)
    with pytest.raises(DataError, match=r"from 48 training rows.*has 47.*set data.films.rows_seed"):
        train(place, tmp_path, "labelled", data_config=fewer)


RECIPE = """
name = "small"
[data.docs]
source = "stdlib_docs"
[steps.more]
run = "augment"
model = "demo:minilm-l6"
data = "docs"
[steps.learn]
run = "train"
model = "demo:minilm-l6"
data = "docs"
augmentation = "more"
"""


def test_the_arrow_from_augmentation_to_training_is_in_the_graph() -> None:
    assert parse_recipe(RECIPE).order == ["more", "learn"]
    with pytest.raises(RecipeError, match=r"no step is called 'mor' \(did you mean 'more'\?\)"):
        parse_recipe(RECIPE.replace('augmentation = "more"', 'augmentation = "mor"'))
    other = RECIPE.replace('augmentation = "more"', 'augmentation = "first"') + (
        '[steps.first]\nrun = "train"\nmodel = "demo:minilm-l6"\ndata = "docs"\n'
    )
    with pytest.raises(
        RecipeError, match=r"runs 'train'; this place needs a step that runs 'augme"
    ):
        parse_recipe(other)
