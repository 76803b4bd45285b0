"""The last lines of a run have a figure of every kind of step that learned or chose something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attar.recipe.outcome.summary import StepSummary
from engine_steps import RECIPE, run_small

FATES = {"kept": 664, "below the cut": 618, "among the highest": 13, "near duplicate": 33}


@pytest.mark.parametrize(
    ("run", "metrics", "said"),
    [
        (
            "train",
            {"steps": 9, "validation": {"nll": 6.5785, "perplexity": 719.5}},
            "  steps 9, validation nll 6.579",
        ),
        ("train", {}, ""),
        ("proxy", {"spearman": {"value": 0.6361, "low": 0.185}}, "  spearman 0.636"),
        (
            "select",
            {"chunks": 1328, "kept": 664, "fates": FATES},
            "  chunks 1,328, kept 664, trimmed 13, near duplicates 33",
        ),
    ],
)
def test_the_last_table_has_figures(run: str, metrics: dict[str, Any], said: str) -> None:
    step = StepSummary("a", run, "0" * 16, False, 1.0, Path(), metrics)
    assert step.facts == said


def test_the_last_lines_name_the_report_and_the_next_command(tmp_path: Path) -> None:
    summary = run_small(tmp_path / "small")
    assert summary.text().splitlines()[-1] == f"report: {tmp_path}/small/report/index.html"
    without = run_small(tmp_path / "small", RECIPE.partition("[steps.report]")[0])
    assert without.text().splitlines()[-1] == f"next: attar report {tmp_path}/small"
    assert without.as_json()["next"] == f"attar report {tmp_path}/small"
