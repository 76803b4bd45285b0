"""Methods compared in training: where one overtakes another, and the gap to a teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import made_up_run
from attar.errors import UsageError
from attar.evaluation.config import ExtrapolateStep
from attar.evaluation.extrapolation import extrapolate
from attar.numerics.power_law import PowerLaw
from attar.progress import Progress
from attar.step import StepContext
from made_up_laws import FLOPS_PER_TOKEN, LAW, TOKENS, write_run

CROSSED = 7e11
"""FLOPs of the middle of a run, where these two laws meet."""
STEEPER = PowerLaw(300.0 * CROSSED**0.25, 0.5, 2.5)
TEACHER = 2.6


def _compared(tmp_path: Path, *models: Any, **settings: Any) -> tuple[dict[str, Any], Path]:
    config = ExtrapolateStep.model_validate(
        {"models": models, "read_off_tokens": (4e6,), "fit": {"bootstrap": 200}, **settings}
    )
    words = [word for runs in config.groups.values() for word in runs]
    folder = tmp_path / "law"
    folder.mkdir()
    context = StepContext(
        name="law",
        folder=folder,
        scratch=tmp_path / "scratch",
        inputs={word: tmp_path / word for word in (*words, "teacher")},
        data={},
        recipe_folder=tmp_path,
        progress=Progress(quiet=True),
    )
    return extrapolate(config, context), folder


def _write(tmp_path: Path, noise: float, seeds: int = 1) -> list[list[str]]:
    """Runs of two methods; the second starts behind and overtakes the first."""
    groups = [["plain" + "x" * i for i in range(seeds)], ["kd" + "x" * i for i in range(seeds)]]
    for group, law in zip(groups, (LAW, STEEPER), strict=True):
        for name in group:
            write_run(tmp_path, name, law, noise=noise)
    write_run(tmp_path, "teacher", PowerLaw(1e10, 1.0, TEACHER - 5e-3))  # at the end, TEACHER
    return groups


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_method_overtakes_another_where_their_curves_meet(seeds: int, tmp_path: Path) -> None:
    metrics, folder = _compared(tmp_path, *_write(tmp_path, 3e-4, seeds), teacher="teacher")
    json.dumps(metrics, allow_nan=False)
    recovery = metrics["recovery"]
    plain, kd = recovery["methods"].values()
    assert recovery["against"] == next(iter(recovery["methods"]))
    assert (plain["crossing"], plain["recovered"]) == (None, None)
    crossing = kd["crossing"]
    assert crossing["leads"]
    assert crossing["low"] <= crossing["compute"] <= crossing["high"]
    assert crossing["compute"] == pytest.approx(CROSSED, rel=0.1)
    assert kd["flops"] == TOKENS * FLOPS_PER_TOKEN
    share = (plain["value"] - kd["value"]) / (plain["value"] - TEACHER)
    assert kd["recovered"]["low"] <= kd["recovered"]["value"] <= kd["recovered"]["high"]
    assert kd["recovered"]["value"] == pytest.approx(share)
    measured = [each["measured"] for each in json.loads(_drawn(folder)).values()]
    assert [len(points) for points in measured] == [20, 20]
    assert all(at["low"] <= at["value"] <= at["high"] for points in measured for at in points)


def _found(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "ci95": [value - half, value + half], "n": 100}


def _drawn(folder: Path) -> str:
    return (folder / "extrapolation.json").read_text()


def test_laws_are_read_off_at_equal_flops(tmp_path: Path) -> None:
    write_run(tmp_path, "plain")
    write_run(tmp_path, "dear", flops_per_token=2 * FLOPS_PER_TOKEN)
    metrics, _ = _compared(tmp_path, "plain", "dear", read_off_budgets=(4,))
    budget = TOKENS * FLOPS_PER_TOKEN
    for name, law in metrics["models"].items():
        [at] = law["at_budgets"]
        assert at["flops"] == 4 * budget
        assert at["value"] == pytest.approx(LAW(4 * budget), rel=1e-3)
        assert at["tokens"] == 4 * TOKENS / (2 if name == "dear" else 1)


def test_a_teacher_that_was_judged_on_other_text_is_refused(tmp_path: Path) -> None:
    for name, rows in (("plain", 8), ("kd", 8), ("teacher", 9)):
        write_run(tmp_path, name, validation_rows=rows)
    with pytest.raises(UsageError, match="validated on 9 rows and the first model on 8"):
        _compared(tmp_path, "plain", "kd", teacher="teacher")


def test_the_page_shows_methods_at_equal_flops(tmp_path: Path) -> None:
    groups = _write(tmp_path, 3e-4, seeds=3)
    metrics, folder = _compared(tmp_path, *groups, teacher="teacher", read_off_budgets=(4,))
    step = made_up_run.write_step(tmp_path / "made", "law", "extrapolate", metrics)
    (step / "extrapolation.json").write_text(_drawn(folder))
    judged = {
        name: {"bits_per_byte": _found(bits, 0.1), "average": _found(share, 0.02)}
        for name, bits, share in (
            *(("plain", 2.0, 0.3), ("plainx", 1.8, 0.34)),
            *(("kd", 1.6, 0.4), ("kdx", 1.7, 0.5), ("kdxx", 1.5, 0.45)),
        )
    }
    judged["plainxx"] = {"bits_per_byte": _found(2.2, 0.1)}  # not asked any task
    scores = made_up_run.write_step(
        tmp_path / "made", "scores", "evaluate", {"models": judged, "data": {"name": "novels"}}
    )
    made = {"law": step, "scores": scores}
    recipe = {"name": "demo", "steps": {"law": {"run": "extrapolate"}}}
    recipe["steps"]["scores"] = {"run": "evaluate"}
    page = made_up_run.make_report(tmp_path / "report", made, recipe).read_text()
    assert page.count('aria-label="Measured validation loss against') == 4
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## Methods at equal FLOPs" in text
    assert "overtakes plain + plainx + plainxx at" in text
    assert "over 3 seeds" in text
    assert "loss at 4 × the FLOPs of plain" in text
    # what evaluations found at the ends: the mean of seeds, and nothing where one is missing
    [head, _, first, second, *_] = text[text.index("| method |") :].splitlines()
    assert head.endswith("| share of the gap | bits per byte, held out | zero-shot average |")
    assert first.endswith("| 2.000 (1.800 to 2.200) | – |")
    assert second.endswith("| 1.600 (1.500 to 1.700) | 45.0 % (40.0 to 50.0) |")
