"""Words that must name steps or data, and circles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attar.errors import ModelError, RecipeError
from attar.models.sources.references import model_fingerprint
from attar.recipe.load import parse_recipe
from engine_steps import RECIPE


def mistakes_in(text: str, path: Path = Path("recipe.toml")) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, path=path)
    return "\n".join(caught.value.mistakes)


def test_a_word_near_a_steps_name_is_no_hub_id() -> None:
    found = mistakes_in(RECIPE.replace('model = "student"', 'model = "studnt"'))
    assert found == (
        "steps.int8.model (line 17): 'studnt' is neither a step nor a folder "
        "(did you mean 'student'?)"
    )


@pytest.mark.parametrize("word", ["owner/name", "distilbert", "demo:minilm-l6"])
def test_hub_ids_and_demo_models_are_left_to_the_models(word: str) -> None:
    text = RECIPE.replace('model = "demo:minilm-l6"', f'model = "{word}"')
    assert parse_recipe(text).steps["teacher"].model == word  # type: ignore[union-attr]


def test_an_existing_folder_wins_over_a_near_name(tmp_path: Path) -> None:
    (tmp_path / "studnt").mkdir()
    text = RECIPE.replace('model = "student"', 'model = "studnt"')
    assert parse_recipe(text, path=tmp_path / "recipe.toml")


def test_a_folder_that_does_not_exist_is_named() -> None:
    found = mistakes_in(RECIPE.replace('model = "student"', 'model = "./models/mine"'))
    assert "folder './models/mine' does not exist (relative paths start at" in found


def test_a_folder_below_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models" / "mine").mkdir(parents=True)
    text = RECIPE.replace('model = "student"', 'model = "~/models/mine"')
    assert parse_recipe(text).steps["int8"].model == "~/models/mine"  # type: ignore[union-attr]


def test_an_unknown_demo_model_and_one_without_a_task_are_mistakes() -> None:
    assert "no demo model" in mistakes_in(RECIPE.replace("demo:minilm-l6", "demo:minilm"))
    found = mistakes_in(RECIPE.replace('model = "student"', 'model = "demo:minilm-l6"'))
    assert "is pretrained but not fine-tuned for anything but sentence_embedding" in found


def test_a_misspelt_kind_of_step_is_one_mistake_and_not_one_for_each_reader() -> None:
    readers = "".join(
        f'[steps.by_{name}]\nrun = "score"\nmodel = "demo:smollm2-135m"\ndata = "corpus"\n'
        for name in ("one", "other")
    )
    text = f"""name = "a"
[data.texts]
source = "stdlib_text"
[steps.corpus]
run = "tokenise"
data = "texts"
tokenizer = "demo:smollm2-135m"
{readers}[steps.kept]
run = "select"
data = "corpus"
teacher = "by_one"
reference = "by_other"
"""
    assert mistakes_in(text).startswith("steps.corpus.run (line 5): 'tokenise' is unknown (did you")
    assert "\n" not in mistakes_in(text)


def test_a_step_that_makes_no_model_for_the_place_is_named_with_those_that_do() -> None:
    found = mistakes_in(RECIPE.replace('model = "student"', 'model = "scores"'))
    assert "step 'scores' runs 'evaluate'; this place needs a step that runs 'train'" in found


def test_unknown_data_is_named_with_what_there_is() -> None:
    found = mistakes_in(
        RECIPE.replace('data = "docs"\n[steps.report]', 'data = "dcs"\n[steps.report]')
    )
    assert "steps.scores.data (line 23): no [data.dcs] (did you mean 'docs'?)" in found
    found = mistakes_in(
        RECIPE.replace('calibration = { data = "docs" }', 'calibration = { data = "x" }')
    )
    assert "steps.int8.calibration.data (line 19): no [data.x]; the recipe has docs" in found


def test_a_circle_is_told_in_order() -> None:
    circle = RECIPE.replace('model = "demo:minilm-l6"', 'model = "student"')
    assert "form a cycle: teacher → student → teacher" in mistakes_in(circle)


def test_a_step_that_reads_itself_is_told() -> None:
    assert "step 'int8' reads itself" in mistakes_in(
        RECIPE.replace('model = "student"', 'model = "int8"')
    )


def test_a_wrong_field_does_not_hide_a_wrong_reference() -> None:
    text = RECIPE.replace('model = "student"', 'model = "studnt"\nweight_bits = 99')
    found = mistakes_in(text)
    assert "studnt" in found
    assert "got 99" in found


def test_a_home_that_does_not_exist_is_a_folder_that_does_not_exist() -> None:
    for word in ("~nobody-at-all/model", "~nobody-at-all"):
        found = mistakes_in(RECIPE.replace('model = "student"', f'model = "{word}"'))
        assert f"folder '{word}' does not exist (relative paths start at" in found
        with pytest.raises(ModelError, match="was not found"):
            model_fingerprint(word, Path())


@pytest.mark.parametrize(
    ("step", "word"),
    [("roberta", "roberta-base"), ("student", "student-base"), ("student", "owner/student")],
)
def test_a_hub_id_that_begins_or_ends_like_a_step_is_left_to_the_models(
    step: str, word: str
) -> None:
    text = RECIPE.replace("student", step).replace('model = "demo:minilm-l6"', f'model = "{word}"')
    assert parse_recipe(text).steps["teacher"].model == word  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("techer", "no step 'techer' (did you mean 'teacher'?)"),
        ("int8", "step 'int8' runs 'quantize'; this place needs a step that runs 'train'"),
        ("student", "step 'student' reads itself"),
    ],
)
def test_flops_are_matched_with_another_train_step(word: str, said: str) -> None:
    matched = f'[steps.student]\nmatch_flops = "{word}"\n'
    assert said in mistakes_in(RECIPE.replace("[steps.student]\n", matched))


def test_steps_that_match_each_other_go_in_a_circle() -> None:
    text = RECIPE.replace("[steps.teacher]\n", '[steps.teacher]\nmatch_flops = "student"\n')
    assert "cycle" in mistakes_in(text)


@pytest.mark.parametrize(
    ("size", "field"),
    [
        ("hidden_size", "hidden_size"),
        ("static_width", "hidden_size"),
        ("intermediate_size", "intermediate_size"),
        ("num_attention_heads", "num_attention_heads"),
    ],
)
def test_a_size_above_that_of_the_model_is_refused(tiny_bert: Path, size: str, field: str) -> None:
    most = json.loads((tiny_bert / "config.json").read_text())[field]
    start = f'model = {{ from = "{tiny_bert}", {size} = {{}} }}'
    text = RECIPE.replace('model = "demo:minilm-l6"', start)
    assert parse_recipe(text.replace("{}", str(most)))
    found = mistakes_in(text.replace("{}", str(most + 1)))
    assert f"steps.teacher.model.{size} (line 8): is {most + 1}, and" in found
    assert f"has {field} = {most}; set model.{size} = {most} or less" in found
