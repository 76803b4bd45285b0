"""Documents to a student by one recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpora
import tiny_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.write_recipe(tmp_path_factory.mktemp("selected"))


@pytest.mark.slow
@pytest.mark.e2e
def test_a_student_is_trained_on_what_was_selected(recipe: Path) -> None:
    done = tiny_recipe.attar("run", recipe, "--out", recipe.parent / "whole")
    assert done.returncode == 0, done.stderr
    run = recipe.parent / "whole" / "selected"
    assert (run / "report" / "index.html").is_file()
    again = tiny_recipe.attar("run", recipe, "--out", recipe.parent / "whole")
    assert again.stderr.count("reused") == 7
