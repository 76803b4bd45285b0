"""What README and the guide say works: their commands parse, their recipes fit the schema, their
Python runs, and what they link to exists.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

import attar
from attar import cli
from attar.analysis.config import AnalyzeStep
from attar.data.config import FilesData, GlueTask
from attar.data.documents import Document, documents
from attar.errors import AttarError
from attar.losses.config import LossConfig
from attar.quantization.config import QuantizeStep
from attar.recipe.checking.mistakes import leaves
from attar.recipe.load import load_recipe, parse_recipe
from attar.recipe.one_step import data_table
from attar.recipe.outcome.sweep import check_sweep
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS
from attar.training.config import TrainStep
from tiny_recipe import TinyRun

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "docs/guides/recipes.md",
    "docs/guides/distillation.md",
    "docs/guides/quantization.md",
    "docs/guides/data.md",
    "docs/guides/corpora.md",
)
LINKED = (
    *("README.md", "CONTRIBUTING.md"),
    *(f"docs/guides/{page.name}" for page in sorted((REPOSITORY / "docs/guides").glob("*.md"))),
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)]+)\)")
ATTAR = re.compile(r"(?:\.venv/bin/)?attar (?=[a-z])")
PLACEHOLDERS = dict.fromkeys(("R.toml", "RECIPE.toml", "support.toml"), "recipes/demo.toml")
"""Words of a command that stand for a recipe."""
MERGED = {"train": TrainStep}
"""Steps whose --set names are looked up here."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(*languages: str) -> list[Block]:
    found = [Block(page, *parts) for page in PAGES for parts in FENCED.findall(text_of(page))]
    return [block for block in found if block.language in languages]


def prose(page: str) -> str:
    return FENCED.sub("", text_of(page))


def commands() -> Iterator[str]:
    """Every command line of the pages: of shell blocks, and between backticks."""
    for block in blocks("", "sh", "bash", "console"):
        yield from block.text.strip().splitlines()
    for page in PAGES:
        words = re.findall(r"`((?:attar|make) [^`]+)`", prose(page))
        yield from (" ".join(word.split()) for word in words)


def attar_commands() -> list[list[str]]:
    lines = [line for line in commands() if ATTAR.match(line)]
    return [shlex.split(ATTAR.sub("", line, count=1), comments=True) for line in lines]


def test_the_pages_have_blocks_of_every_kind_and_no_other() -> None:
    """A block of a language that no test here knows would go unchecked."""
    known = ("", "toml", "python")
    assert len(blocks(*known)) == sum(len(FENCED.findall(text_of(page))) for page in PAGES)
    assert all(blocks(language) for language in known)
    assert len(attar_commands()) >= 7


def test_every_line_of_a_shell_block_is_a_command_that_is_checked() -> None:
    for line in commands():
        assert ATTAR.match(line) or line.startswith("make "), line


@pytest.mark.parametrize("words", attar_commands(), ids=" ".join)
def test_a_command_has_a_verb_flags_and_arguments_that_exist(words: list[str]) -> None:
    verbs = typer.main.get_group(cli.app).commands
    verb, *arguments = words
    assert verb in verbs
    if arguments:  # a verb alone is only mentioned
        context = verbs[verb].make_context(verb, list(arguments))  # it eats its list
        assert context.params
    for argument in arguments:
        if argument.endswith(".toml"):
            assert (REPOSITORY / PLACEHOLDERS.get(argument, argument)).is_file()
    given = [b for a, b in pairwise(arguments) if a == "--set"]
    recipes = [a for a in arguments if a.endswith(".toml")]
    if recipes:
        load_recipe(REPOSITORY / PLACEHOLDERS.get(recipes[0], recipes[0]), given)
    elif given:
        assert {one.partition("=")[0] for one in given} <= set(MERGED[verb].model_fields)
    if "--data" in arguments:
        word = arguments[arguments.index("--data") + 1]
        table = json.dumps(data_table(word)).replace('": ', '" = ')
        step = '[steps.a]\nrun = "train"\nmodel = "demo:minilm-l6"\ndata = "a"'
        assert parse_recipe(f'name = "a"\ndata.a = {table}\n{step}').data["a"]


def test_a_make_command_is_a_target() -> None:
    targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE))
    asked = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert {"demo", "demo-corpus", "test"} <= asked <= targets


OF_ATTAR = [block for block in blocks("python") if "import attar" in block.text]


@pytest.mark.parametrize("block", OF_ATTAR, ids=lambda block: block.page)
def test_python_runs_and_answers(
    block: Block, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a tiny export, named in place of the demo's."""
    tree = ast.parse(block.text)
    folders = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and "/" in str(n.value)]
    assert [folder.value for folder in folders] == ["runs/demo/deploy"]
    folders[0].value = str(tiny_run.folder / "deploy")
    exec(compile(tree, block.page, "exec"), {})
    assert "Prediction(label=" in capsys.readouterr().out


def test_a_folder_of_texts_is_a_data_table(tmp_path: Path) -> None:
    """With the guide's own data table."""
    [table] = [b for b in blocks("toml") if 'document = "file"' in b.text]
    for name, text in {"sea/calm": "no wind\nat all", "land/far": "“a hill”"}.items():
        (tmp_path / "my_folder" / name).parent.mkdir(parents=True)
        (tmp_path / "my_folder" / f"{name}.txt").write_text(text, encoding="utf-8")
    [settings] = tomllib.loads(table.text)["data"].values()
    found = documents(FilesData(**settings), tmp_path, "library", "source")
    rows = [(row.source, row.text) for row in found if isinstance(row, Document)]
    assert len(rows) == 1, "the other one is held out"
    assert rows[0] in {("land", "“a hill”"), ("sea", "no wind\nat all")}


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.text.split("\n")[0])
def test_a_part_of_a_recipe_fits_into_a_whole_one(block: Block) -> None:
    content = demo()
    part = tomllib.loads(block.text)
    for name, value in part.items():
        is_named = name in ("data", "steps")
        content[name] = {**content[name], **value} if is_named else value
    recipe = Recipe.model_validate_json(json.dumps(content), strict=True)
    assert check_sweep(recipe) == []
    for step in part.get("steps", {}):
        assert step in recipe.order


def demo() -> dict[str, Any]:
    return tomllib.loads(text_of("recipes/demo.toml"))


def test_the_heart_of_the_demo_is_as_the_demo_has_it() -> None:
    [block] = [block for block in blocks("toml") if block.page == "README.md"]
    for name, shown in tomllib.loads(block.text)["steps"].items():
        written = demo()["steps"][name]
        assert {setting: written[setting] for setting in shown} == shown
    asked = re.findall(r"runs/demo/([\w-]+)", text_of("README.md"))
    assert set(asked) <= set(demo()["steps"])


def targets() -> list[tuple[str, str]]:
    found = [(page, target) for page in LINKED for target in LINK.findall(text_of(page))]
    return [(page, target) for page, target in found if "://" not in target]


@pytest.mark.parametrize(("page", "target"), targets())
def test_a_link_leads_to_something(page: str, target: str) -> None:
    assert ((REPOSITORY / page).parent / target.partition("#")[0]).exists()


def test_every_guide_is_linked_in_readme() -> None:
    linked = {target for page, target in targets() if page == "README.md"}
    assert set(LINKED) - {"README.md"} <= linked


def test_files_named_in_passing_exist() -> None:
    found = [
        (page, name)
        for page in LINKED
        for name in re.findall(r"`((?:recipes|docs|benchmarks|src)/[^`<]+)`", prose(page))
    ]
    assert found
    assert not [(page, name) for page, name in found if not (REPOSITORY / name).exists()]


def test_the_table_of_steps_names_what_there_is() -> None:
    rows = re.findall(r"^\| (\w+) \| (.*) \|$", text_of("README.md"), re.MULTILINE)
    table = dict(rows)
    assert set(table) == {*STEPS, "models", "step"}
    losses = {get_args(form.model_fields["kind"].annotation)[0] for form in _members(LossConfig)}
    assert set(re.findall(r"`(\w+)`", table["train"])) == losses
    studies = {form.model_fields["study"].default for form in leaves(get_args(AnalyzeStep)[0])}
    assert set(re.findall(r"`(\w+)`", table["analyze"])) == studies
    methods = {
        get_args(form.model_fields["method"].annotation)[0] for form in _members(QuantizeStep)
    }
    assert set(re.findall(r"`(\w+)`", table["quantize"])) == methods


def _members(union: Any) -> tuple[Any, ...]:
    """The classes of a tagged union."""
    return get_args(get_args(union)[0])


def test_the_guide_lists_every_exit_code_and_every_task() -> None:
    guide = text_of("docs/guides/recipes.md")
    listed = guide.partition("Exit codes:")[2].partition("One step")[0]
    codes = {int(code) for code in re.findall(r"(?:^|·)\s*(\d+) ", listed)}
    ours = {error.exit_code for error in AttarError.__subclasses__()}
    assert codes == {0, cli.BUG_EXIT_CODE, *ours}
    assert " ".join(get_args(GlueTask)) in guide


def test_what_readme_calls_is_public() -> None:
    assert {"load", "run"} <= set(attar.__all__)
