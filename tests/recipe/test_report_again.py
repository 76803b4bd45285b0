"""The report can be written again from what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from attar.artifacts import read_result
from attar.errors import UsageError
from attar.recipe.report_again import report_again
from engine_steps import KINDS, run_small, start_small


def test_the_report_of_a_finished_run_keeps_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    run_small(folder)
    key = read_result(folder / "report").key
    (folder / "report" / "index.html").write_text("scribbled over")
    page = report_again(folder, quiet=True, kinds=KINDS)
    assert page.read_text() == "teacher student int8 scores"
    assert read_result(folder / "report").key == key
    assert [step.reused for step in run_small(folder).steps] == [True] * 5


def test_the_report_of_half_a_run_shows_half_and_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    start_small(folder, crash="int8:0").communicate(timeout=60)
    assert report_again(folder, quiet=True, kinds=KINDS).read_text() == "teacher student"
    made = [step.name for step in run_small(folder).steps if not step.reused]
    assert made == ["int8", "scores", "report"]
    assert (folder / "report" / "index.html").read_text() == "teacher student int8 scores"


def test_nothing_published_is_nothing_to_report(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    start_small(folder, crash="teacher:0").communicate(timeout=60)
    with pytest.raises(UsageError, match=r"no step of .* is finished yet"):
        report_again(folder, quiet=True, kinds=KINDS)
