"""What a check says without refusing it."""

from __future__ import annotations

import pytest

from attar.recipe.checking.doubts import settings_in_doubt
from attar.recipe.load import parse_recipe

RECIPE = """
name = "small"
[data.library]
source = "stdlib_text"
[steps.corpus]
run = "tokenize"
data = "library"
tokenizer = { train_on = "library", vocab_size = 512 }
max_length = 64
[steps.student]
run = "train"
model = { size = "pico", family = "llama", tokenizer = "corpus" }
data = "corpus"
max_length = 64
[steps.longer]
run = "train"
model = "student"
data = "corpus"
max_length = 64
"""


def test_random_weights_at_the_rate_of_fine_tuning_are_doubted() -> None:
    [doubt] = settings_in_doubt(parse_recipe(RECIPE))
    assert doubt.startswith("steps.student.learning_rate is not set: the default, 5e-05")
    assert "1e-3" in doubt


@pytest.mark.parametrize(
    "chosen",
    [
        "steps.student.learning_rate=5e-5",
        'sweep={ steps = ["student"], learning_rate = [1e-3, 3e-3] }',
    ],
)
def test_a_rate_that_was_chosen_is_not_doubted(chosen: str) -> None:
    assert list(settings_in_doubt(parse_recipe(RECIPE, [chosen]))) == []
