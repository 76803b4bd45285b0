"""What a model folder tells before anything runs, by its files' names, headers and config."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from attar.errors import ArtifactError, AttarError, ModelError, RecipeError
from attar.models.sources.demo import demo_config
from attar.recipe.checking.local_files import require_models
from attar.recipe.load import parse_recipe

RECIPE = """
name = "small"
[data.docs]
source = "stdlib_docs"
[steps.teacher]
run = "train"
model = { from = "bert", keep_blocks = [0, 1] }
data = "docs"
[steps.student]
run = "train"
model = { from = "teacher", keep_blocks = [1] }
data = "docs"
"""


def check(folder: Path, *overrides: str) -> None:
    require_models(parse_recipe(RECIPE, overrides), folder)


@pytest.fixture
def bert(tmp_path: Path, tiny_bert: Path) -> Path:
    return shutil.copytree(tiny_bert, tmp_path / "bert")


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("harm", "error", "words"),
    [
        (cut, ArtifactError, "is truncated: its header describes"),
        (pickled, ArtifactError, "only pytorch_model.bin"),
        (lambda f: (f / "tokenizer.json").unlink(), ModelError, "has no tokenizer.json"),
        (lambda f: (f / "config.json").unlink(), ModelError, "has no config.json"),
    ],
)
def test_a_folder_that_could_not_be_read_is_refused(
    tmp_path: Path,
    bert: Path,
    harm: Callable[[Path], object],
    error: type[AttarError],
    words: str,
) -> None:
    check(tmp_path)
    harm(bert)
    with pytest.raises(error, match=words):
        check(tmp_path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps.teacher.model.keep_blocks=[0, 2]", r"steps.teacher.*names \[2\].*has 2 blocks"),
        ("steps.student.model.keep_blocks=[1, 3]", r"steps.student.*names \[3\].*has 2 blocks"),
        ("steps.teacher.model.keep_blocks=[1]", r"steps.student.*names \[1\].*has 1 block,"),
        ("steps.teacher.model.from=demo:minilm-l6", ""),
    ],
)
def test_blocks_that_a_model_does_not_have_are_a_mistake(
    tmp_path: Path, bert: Path, override: str, words: str
) -> None:
    assert bert.is_dir()
    if not words:
        check(tmp_path, override, "steps.teacher.model.keep_blocks=[0, 5]")
        return
    with pytest.raises(RecipeError, match=words):
        check(tmp_path, override)


def test_the_blocks_of_a_demo_model_are_those_of_its_config(tmp_path: Path) -> None:
    demo = "steps.teacher.model.from=demo:minilm-l6"
    if not demo_config("demo:minilm-l6"):
        pytest.skip("the package of the demo model is not installed")
    with pytest.raises(RecipeError, match="has 6 blocks, 0 to 5"):
        check(tmp_path, demo, "steps.teacher.model.keep_blocks=[5, 6]")


def test_a_model_on_the_hub_is_left_to_the_run(tmp_path: Path) -> None:
    check(tmp_path, "steps.teacher.model.from=owner/name")
