"""A student and its cache read the same rows, or the recipe is refused at once."""

from __future__ import annotations

import pytest

from attar.errors import RecipeError
from attar.recipe.load import parse_recipe

RECIPE = """
name = "cached"
seed = 3
[data.docs]
source = "stdlib_docs"
[data.others]
source = "stdlib_docs"
[steps.teacher]
run = "train"
model = "demo:minilm-l6"
data = "docs"
[steps.answers]
run = "cache"
teacher = "teacher"
data = "docs"
hidden_states = "uniform:3"
[steps.student]
run = "train"
model = { from = "teacher", keep_blocks = [1] }
teacher = "answers"
data = "docs"
losses = [{ kind = "forward_kl" }, { kind = "eofd" }]
"""
SEEDS = 'sweep={ steps = ["student"], seed = [3, 4] }'
BOTH = 'sweep={ steps = ["answers", "student"], seed = [3, 4] }'
FEW = "data.docs.train_rows=100"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [SEEDS],
        [FEW],
        [FEW, SEEDS, "data.docs.rows_seed=3"],
        [FEW, BOTH],
        ["steps.student.max_length=64", "steps.answers.max_length=64"],
    ],
)
def test_a_cache_of_the_student_s_rows_is_fine(overrides: list[str]) -> None:
    assert parse_recipe(RECIPE, overrides).order[:2] == ["teacher", "answers"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["steps.student.data='others'"], r"is 'others', the cache 'answers' has 'docs'"),
        (["steps.student.max_length=64"], r"is 64, the cache 'answers' has 128"),
        (["steps.answers.template='{0}'"], r"is not set, the cache 'answers' has '\{0\}'"),
        (["steps.student.max_target_length=64"], r"is 64, the cache 'answers' has 128"),
        (["steps.student.objective='regression'"], r"is 'regression', the cache .* has not set"),
        (["steps.student.label_words=['a', 'b']"], r"is a, b, the cache 'answers' has not set"),
        (
            ["steps.student.losses=[{ kind = 'relation_kl' }]"],
            r"relation_kl compares queries, keys and values, which a cache does not keep",
        ),
        ([FEW, SEEDS], r"seeds 3, 4 here and 3 in the cache .* set data.docs.rows_seed = 3"),
        ([FEW, "steps.student.seed=7"], r"seeds 7 here and 3 in the cache"),
        ([FEW, "steps.answers.seed=7"], r"seeds 3 here and 7 in the cache"),
        (
            ["steps.student.losses=[{ kind = 'attention_mse' }]"],
            r"attention_mse compares attention scores, .* teacher = 'teacher' to ask it live",
        ),
    ],
)
def test_what_they_read_otherwise_is_a_mistake(overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(RECIPE, overrides)


MORE = """
[steps.more]
run = "augment"
model = "lm"
data = "docs"
"""
LEARNS = "steps.student.augmentation='more'"
ANSWERS = "steps.answers.augmentation='more'"
WITH_MORE = 'sweep={ steps = ["more", "answers", "student"], seed = [3, 4] }'


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [FEW],
        [FEW, WITH_MORE],
        [SEEDS],
        [FEW, SEEDS, "data.docs.rows_seed=3"],
    ],
)
def test_made_rows_of_the_rows_a_step_reads_are_fine(overrides: list[str]) -> None:
    assert "more" in parse_recipe(RECIPE + MORE, [LEARNS, ANSWERS, *overrides]).order


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [LEARNS, "steps.student.teacher='teacher'", SEEDS],
            r"steps\.student\.augmentation .* seeds 3, 4 here and 3 in the augment step 'more', "
            r"which may be other rows; set data\.docs\.rows_seed = 3",
        ),
        (
            [
                *(LEARNS, "steps.student.teacher='teacher'"),
                'sweep={ steps = ["student"], "student.seed" = [3, 4] }',
            ],
            "seeds 3, 4 here and 3 in the augment step",
        ),
        (
            [LEARNS, "steps.student.teacher='teacher'", "steps.more.seed=7"],
            "seeds 3 here and 7 in the augment step 'more'",
        ),
        (
            [
                *(LEARNS, "steps.student.teacher='teacher'"),
                'sweep={ steps = ["student", "more"], '
                '"student.seed" = [3, 4], "more.seed" = [3, 4] }',
            ],
            "seeds 3, 4 here and 3, 4 in the augment step 'more', which may be other rows",
        ),
        (
            [LEARNS, ANSWERS, BOTH],
            r"steps\.answers\.augmentation .* seeds 3, 4 here and 3 in the augment step 'more'",
        ),
    ],
)
def test_made_rows_of_other_rows_are_a_mistake(overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(RECIPE + MORE, [FEW, *overrides])


def test_a_cache_without_the_made_rows_its_student_learns_from_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match=r"is 'more', the cache 'answers' has not set"):
        parse_recipe(RECIPE + MORE, [LEARNS])


def test_rows_made_of_other_data_have_their_own_seeds() -> None:
    of_others = [LEARNS, "steps.student.teacher='teacher'", "steps.more.data='others'"]
    assert "more" in parse_recipe(RECIPE + MORE, [FEW, SEEDS, *of_others]).order


def test_a_cache_is_no_model() -> None:
    with pytest.raises(RecipeError, match="'answers' runs 'cache'"):
        parse_recipe(RECIPE, ["steps.student.model='answers'"])
