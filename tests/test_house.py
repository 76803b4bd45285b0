"""The rules of form, held by the machine: lengths, names, and what the project may speak of."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
NAMELESS = {"utils.py", "helpers.py", "common.py", "base.py", "misc.py"}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".html", ".css", ".js", ".cff", ".yml", ""}
FOREIGN = re.compile(
    r"/work/|/tmp/w\b|/root/|pypi\.org|files\.pythonhosted|registry\.npmjs|download\.pytorch\.org"
)


def _sources(repository: Path) -> list[Path]:
    return sorted((repository / "src").rglob("*.py"))


def _tracked(repository: Path) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = (repository / name for name in listing.stdout.split("\0") if name)
    return [file for file in files if file.is_file() and file.suffix in TEXT_SUFFIXES]


def test_no_source_file_is_longer_than_the_cap(repository: Path) -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in _sources(repository)}
    too_long = {str(file): lines for file, lines in lengths.items() if lines > MAX_FILE_LINES}
    assert lengths
    assert not too_long


def test_no_function_is_longer_than_the_cap(repository: Path) -> None:
    too_long = []
    for file in _sources(repository):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    too_long.append(f"{file.name}:{node.lineno} {node.name} has {lines} lines")
    assert not too_long


def test_every_file_is_named_for_what_it_holds(repository: Path) -> None:
    assert not [str(file) for file in _sources(repository) if file.name in NAMELESS]


def test_contributing_lists_the_floors_that_the_linter_holds(repository: Path) -> None:
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    [contract] = settings["tool"]["importlinter"]["contracts"]
    page = (repository / "CONTRIBUTING.md").read_text()
    listed = page.partition("siblings never import each other:\n\n```\n")[2].partition("```")[0]
    assert [line.partition("   ")[0] for line in listed.splitlines()] == contract["layers"]
    assert contract["exhaustive"]  # the linter itself refuses a file without a floor


def test_nothing_left_by_a_merge_or_an_editor_is_tracked(repository: Path) -> None:
    listing = subprocess.run(
        ["git", "ls-files", "*.orig", "*.rej", "*.bak", "*~", "*.swp"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not listing.stdout.split()


def test_every_module_opens_with_what_it_is_for(repository: Path) -> None:
    silent = [
        str(file)
        for file in _sources(repository)
        if file.name != "__init__.py" and not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert not silent


def test_the_project_speaks_of_itself_only(repository: Path) -> None:
    this_file = Path(__file__).resolve()
    found = []
    for file in _tracked(repository):
        if file.resolve() == this_file:
            continue
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            if FOREIGN.search(line):
                found.append(f"{file.relative_to(repository)}:{number} {line.strip()[:100]}")
    assert not found


def test_pins_are_plain_lines(repository: Path) -> None:
    lines = (repository / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in lines
    assert not [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.!]+", line)]
