"""What is wrong with a `[data.<name>]` table is said when the recipe is read."""

from __future__ import annotations

import pytest

from attar.data.config import FilesData
from attar.errors import RecipeError
from attar.recipe.load import parse_recipe

RECIPE = 'name = "r"\n[data.mine]\nsource = "files"\npath = "mine"\n'
TRAIN = '[steps.a]\nrun = "train"\nmodel = "bert"\ndata = "mine"\n'


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('label_names = ["pos", "neg", "pos"]', "'pos' is listed twice"),
        ('label_names = ["pos", "neg"]\nobjective = "regression"', "remove label_names"),
    ],
)
def test_label_names_that_no_model_can_have_are_a_mistake_in_the_recipe(
    settings: str, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE + settings + "\n" + TRAIN)
    (mistake,) = caught.value.mistakes
    assert said in mistake and mistake.startswith("data.mine")


def test_label_names_keep_the_order_of_the_recipe() -> None:
    recipe = parse_recipe(RECIPE + 'label_names = ["pos", "neg"]\n' + TRAIN)
    settings = recipe.data["mine"]
    assert isinstance(settings, FilesData) and settings.label_names == ("pos", "neg")
