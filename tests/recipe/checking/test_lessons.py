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
FILES = 'data.docs={ source = "files", path = "docs" }'
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
        (
            [FILES, "steps.teacher.window_overlap=4"],
            r"is of long texts in windows; the objective is class",
        ),
        (["steps.student.data='others'"], r"is 'others', the cache 'answers' has 'docs'"),
        (["steps.student.max_length=64"], r"is 64, the cache 'answers' has 128"),
        (["steps.answers.template='{0}'"], r"is not set, the cache 'answers' has '\{0\}'"),
        (["steps.student.max_target_length=64"], r"is 64, the cache 'answers' has 128"),
        (
            ["steps.student.losses=[{ kind = 'policy_gradient' }]"],
            r"policy_gradient compares continuations that are sampled in every step, which a cache",
        ),
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
LEARNS = "steps.student.data='more'"
ANSWERS = "steps.answers.data='more'"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [FEW],  # the made rows and their sources are those that the augment step drew
        [FEW, SEEDS],
        [FEW, "steps.more.seed=7"],
        [FEW, 'sweep={ steps = ["more", "answers", "student"], seed = [3, 4] }'],
    ],
)
def test_steps_that_read_made_rows_read_the_same(overrides: list[str]) -> None:
    assert "more" in parse_recipe(RECIPE + MORE, [LEARNS, ANSWERS, *overrides]).order


def test_a_cache_without_the_made_rows_its_student_learns_from_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match=r"is 'more', the cache 'answers' has 'docs'"):
        parse_recipe(RECIPE + MORE, [LEARNS])


@pytest.mark.parametrize("step", ["teacher", "answers"])
def test_made_rows_without_labels_are_a_mistake_where_labels_are_needed(step: str) -> None:
    written = f"steps.{step}.objective='text_to_text'"
    asks = [f"steps.{step}.data='more'", written, "steps.student.data='more'"]
    kept = "steps.more.keep_labels=true"
    said = rf"steps\.{step}\.data.*rows that 'more' makes have no labels.*more.keep_labels = true"
    with pytest.raises(RecipeError, match=said):
        parse_recipe(RECIPE + MORE, asks)
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE + MORE, [*asks, kept, "steps.student.max_length=7"])
    assert "have no labels" not in str(caught.value)


def test_a_cache_is_no_model() -> None:
    with pytest.raises(RecipeError, match="'answers' runs 'cache'"):
        parse_recipe(RECIPE, ["steps.student.model='answers'"])


FILES = 'source = "files"\npath = "somewhere"\nobjective = '


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("causal_lm", [], r"steps\.more\.data.*'docs' is for causal_lm; augmentation supports"),
        ("regression", ["steps.more.keep_labels=true"], r"steps\.more\.data.*has scores"),
        (
            "regression",
            ["steps.teacher.objective='classification'"],
            r"steps\.teacher\.data.*objective is 'classification', but data 'docs' is for regress",
        ),
        ("regression", ["steps.teacher.template='{0}'"], r"steps\.teacher.*name classes by words"),
    ],
)
def test_data_for_something_else_is_a_mistake(kind: str, changes: list[str], said: str) -> None:
    recipe = (RECIPE + MORE).replace('source = "stdlib_docs"', f'{FILES}"{kind}"', 1)
    with pytest.raises(RecipeError, match=said):
        parse_recipe(recipe, changes)
