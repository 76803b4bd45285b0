"""Row 15: a broken recipe is all its mistakes at once, exit code 2, never a traceback.

Each file goes through the real command line.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from attar.cli import main
from engine_steps import RECIPE

DEEP = 20_000
LONGEST_S = 20.0
"""Far above what any of them takes, far below what a quadratic reading of them would."""
BROKEN = {
    "unknown key": (RECIPE.replace("seed = 3", "sead = 3"), "did you mean 'seed'?"),
    "wrong type": (RECIPE.replace("seed = 3", "seed = '3'"), "should be a valid integer, got '3'"),
    "table for a value": (RECIPE.replace("seed = 3", "seed = { a = 1 }"), "valid integer"),
    "value for a table": ('name = "a"\nsteps = 3', "steps (line 2): should be a"),
    "list for a table": (RECIPE + "[[steps]]\n", "not TOML: Cannot"),
    "circle": (RECIPE.replace('"demo:minilm-l6"', '"student"'), "teacher → student → teacher"),
    "missing step": (RECIPE.replace('= "student"', '= "studnt"'), "did you mean 'student'?"),
    "missing data": (RECIPE.replace('data = "docs" }', 'data = "x" }'), "no [data.x]"),
    "no steps": ('name = "a"', "steps: missing"),
    "empty": ("", "name: missing"),
    "deep list": (f"name = {'[' * DEEP}{']' * DEEP}", "nested more than 64 deep"),
    "deep table": (f"name = {'{a=' * DEEP}1{'}' * DEEP}", "nested more than 64 deep"),
    "deep dotted name": (f"{'a.' * DEEP}a = 1", "nested more than 64 deep"),
    "deep header": (f"[{'a.' * DEEP}a]", "nested more than 64 deep"),
    "deep and unclosed": ("x = " + "[" * DEEP, "nested more than 64 deep"),
    "not TOML": ("name = = 1", "not TOML: Invalid value (at line 1, column 8)"),
    "not UTF-8": (b"name = '\xff\xfe'", "line 1: byte 0xff is not UTF-8"),
    "NUL bytes": (b"name = 'a\x00b'", "not TOML"),
    "UTF-16": ("name = 'a'".encode("utf-16"), "is not UTF-8"),
    "10 MB": (b"#" * 10_000_000, "has 9.5 MiB, but a recipe has at most 1 MiB"),
    "20,000 unknown keys": ("\n".join(f"k{i}=1" for i in range(20_000)), "more"),
    "date": (RECIPE.replace("seed = 3", "seed = 1979-05-27"), "is a date or time"),
    "infinity": (RECIPE.replace("seed = 3", "seed = inf"), "inf is not a finite number"),
    "huge number": (RECIPE.replace("seed = 3", f"seed = {'9' * 400}"), "seed (line 3)"),
    "endless number": (RECIPE.replace("seed = 3", f"seed = {'9' * 5000}"), "digits"),
}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run `attar check` with these arguments."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["attar", "check", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        code = caught.value.code
        return Outcome(code if isinstance(code, int) else -1, said.out, said.err)

    return run


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_recipe_is_mistakes_and_exit_code_2(
    name: str, tmp_path: Path, check: Callable[..., Outcome]
) -> None:
    content, said = BROKEN[name]
    file = tmp_path / "recipe.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.monotonic()
    found = check(str(file))
    assert time.monotonic() - start < LONGEST_S
    assert found.code == 2, found.err
    assert said in found.err
    assert "Traceback" not in found.err
    assert found.out == ""
    assert len(found.err) < 20_000


@pytest.mark.parametrize("name", ["deep list", "circle"])
def test_a_process_of_its_own_answers_alike(name: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(str(BROKEN[name][0]))
    command = [sys.executable, "-c", "from attar.cli import main; main()", "check", str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert BROKEN[name][1] in found.stderr
    assert "Traceback" not in found.stderr


def test_every_mistake_is_told_at_once(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(
        RECIPE.replace("seed = 3", "seed = '3'")
        .replace('model = "student"', 'model = "studnt"')
        .replace('"demo:minilm-l6"', '"student"')
        .replace('run = "report"', 'run = "reprot"')
    )
    assert "5 mistakes" in check(str(file), "--set", "steps.scores.datum=1").err


@pytest.mark.parametrize("place", [".", "missing.toml", "recipe.toml/inside"])
def test_what_is_no_file_is_said(tmp_path: Path, place: str, check: Callable[..., Outcome]) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    found = check(str(tmp_path / place))
    assert found.code == 2
    assert "Traceback" not in found.err
