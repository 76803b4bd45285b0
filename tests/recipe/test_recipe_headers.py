"""What a recipe's first lines promise is what its steps hold."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from attar.recipe.load import load_recipe, parse_recipe


def header_and_steps(file: Path) -> tuple[str, list[dict[str, Any]]]:
    lines = takewhile(lambda line: line.startswith("#"), file.read_text().splitlines())
    steps = load_recipe(file).steps.values()
    return " ".join(line.lstrip("# ") for line in lines), [step.model_dump() for step in steps]


@pytest.mark.parametrize("name", ["glue_ptq", "glue_qat"])
def test_a_glue_recipe_is_about_the_models_methods_and_bits_that_it_names(
    name: str, repository: Path
) -> None:
    header, steps = header_and_steps(repository / "recipes" / f"{name}.toml")
    trained = [step for step in steps if step["run"] == "train"]
    quantized = [step for step in steps if step["run"] == "quantize"]
    assert {step["model"] for step in trained} == {"google-bert/bert-base-uncased"}
    assert "BERT-base on eight GLUE tasks" in header and len(trained) == 8
    (method,) = {step["method"] for step in quantized}
    assert method in header
    if name == "glue_ptq":
        said = {f"W{step['weight_bits']}A{step['activation_bits']}" for step in quantized}
    else:
        keys = ("weight_bits", "embedding_bits", "activation_bits")
        said = {"-".join(str(step[key]) for key in keys) for step in quantized}
        assert {step["learning_rate"] for step in quantized} == {3e-5}
        assert "one learning rate" in header
        assert {(step["transform"], step["start"], step["distil"]) for step in quantized} == {
            ("gamma", "token_wise_clipping", True)
        }
    assert [words for words in said if words not in header] == []
    assert len(said) == len(quantized) / 8


def test_the_recipe_of_t5_with_a_head_says_so(repository: Path) -> None:
    header, steps = header_and_steps(
        repository / "recipes" / "eofd" / "table_16_t5_class_head.toml"
    )
    trained = [step for step in steps if step["run"] == "train"]
    assert {step["objective"] for step in trained} == {"classification"}
    assert 'objective = "classification"' in header and "run_glue.py" in header


@pytest.mark.parametrize("name", ["table_15_t5_teachers", "table_16_t5"])
def test_the_t5_recipes_say_that_words_are_written(name: str, repository: Path) -> None:
    header, steps = header_and_steps(repository / "recipes" / "eofd" / f"{name}.toml")
    trained = [step for step in steps if step["run"] == "train"]
    assert {step["objective"] for step in trained} == {"text_to_text"}
    assert all(step["label_words"] for step in trained)
    assert 'objective = "text_to_text"' in header and "run_glue.py" in header


@pytest.mark.parametrize("family", ["bart", "bert", "roberta"])
def test_a_glue_table_without_the_lines_of_other_tasks_is_a_recipe(
    family: str, repository: Path
) -> None:
    file = repository / "recipes" / "outlier_suppression" / f"glue_{family}.toml"
    lines, tasks = file.read_text().splitlines(), list(load_recipe(file).data)
    assert "# For one task alone, delete the lines that begin with another task's name." in lines
    others = tuple(task for task in tasks if task != "rte")
    recipe = parse_recipe("\n".join(line for line in lines if not line.startswith(others)))
    assert list(recipe.data) == ["rte"]
    assert next(iter(recipe.steps)) == "rte"
    assert len(recipe.steps) == 15
