"""The tutorial is run as it stands: its file is written, its commands are given in their order."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner, Result

import tiny
from attar import cli
from attar.recipe.load import load_recipe
from attar.recipe.starting.sizes import SIZES

PAGE = "docs/guides/ten_minutes.md"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FAST = [
    *("steps.teacher.epochs=2", "steps.student.epochs=2", "steps.scores.memory=false"),
    "steps.scores.speed={ batch_sizes = [1], tokens = 16, threads = 1, rounds = 3, calls = 1 }",
    "steps.scores.bootstrap=100",
    "steps.deploy.parity={ max_relative_error = 100.0, max_label_flips = 1.0 }",
    "gates=[]",
]
"""Two epochs leave a model whose answers hardly differ."""


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / PAGE).read_text(encoding="utf-8")
    return [content for found, content in FENCED.findall(text) if found == language]


def attar(words: list[str]) -> Result:
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    return result


def test_the_tutorial_leads_from_a_csv_to_answers(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_tiny_bert(tmp_path / "bert", num_labels=3)
    [makes_the_file] = blocks(repository, "python")
    exec(compile(makes_the_file, PAGE, "exec"), {})
    [shown] = blocks(repository, "text")
    lines = [line for block in blocks(repository, "bash") for line in block.splitlines()]
    said: dict[str, str] = {}
    for line in lines:
        command, verb, *words = shlex.split(line)
        assert command == "attar"
        if verb == "new":
            words += ["--model", "bert"]
        if verb in ("check", "plan", "run"):
            words += [word for setting in FAST for word in ("--set", setting)]
        said.setdefault(verb, attar([verb, *words]).output)
    guesses = shown.partition("data 'support'")[0]
    assert guesses in said["new"]
    assert "3 classes: " in said["new"]
    for verb in ("check", "plan"):
        assert "data 'support'" in said[verb]
        assert re.search(r"^  train +450 ", said[verb], re.MULTILINE)
    assert "fine; 6 steps" in said["check"]
    assert re.search(r"billing|delivery|account", said["predict"])
    page = (tmp_path / "runs/support/report/index.html").read_text(encoding="utf-8")
    assert "What is in <bdi>support</bdi>, by split" in page
    assert "3 classes: " in page


def test_the_tutorials_lines_are_those_of_the_recipe(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [makes_the_file] = blocks(repository, "python")
    exec(compile(makes_the_file, PAGE, "exec"), {})
    tiny.write_tiny_bert(tmp_path / "bert")
    attar(["new", "support.csv", "--model", "bert"])
    [found] = json.loads(attar(["check", "support.toml", "--json"]).output)["data"]
    assert found["splits"]["train"]["rows"] == 450
    text = (tmp_path / "support.toml").read_text(encoding="utf-8")
    for block in blocks(repository, "toml"):
        assert block in text
    for size in SIZES:
        attar(["new", "support.csv", "--model", "bert", "--size", size, "--force"])
        recipe = load_recipe(tmp_path / "support.toml")
        assert list(recipe.order)[-1] == "report"
        assert tomllib.loads((tmp_path / "support.toml").read_text())["name"] == "support"


def test_the_tutorials_other_commands_have_flags_that_exist(repository: Path) -> None:
    text = FENCED.sub("", (repository / PAGE).read_text(encoding="utf-8")).replace("\\|", "|")
    verbs = typer.main.get_group(cli.app).commands
    commands = [shlex.split(line) for line in re.findall(r"`attar ([^`]+)`", text)]
    assert len(commands) >= 9
    for verb, *words in commands:
        assert verb in verbs
        if words:
            assert verbs[verb].make_context(verb, list(words)).params
