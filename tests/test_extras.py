"""Optional parts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from attar.errors import UsageError
from attar.extras import require

CODE = (".py", ".pyc")


def test_an_installed_library_is_imported() -> None:
    assert require("json", "eval") is json


def test_a_missing_library_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(UsageError, match=r"pip install 'attar\[export\]'"):
        require("no_such_library", "export")


def test_an_installation_has_every_file_of_the_package(repository: Path) -> None:
    """What is not Python reaches a wheel only by name."""
    package = repository / "src" / "attar"
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    named = project["tool"]["setuptools"]["package-data"]["attar"]
    carried = {file for pattern in named for file in package.glob(pattern)}
    there = {file for file in package.rglob("*") if file.is_file() and file.suffix not in CODE}
    assert there == carried
