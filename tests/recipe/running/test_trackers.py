"""Curves for other programs: every line of a history, as it is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tiny_recipe
import training_runs
from attar.errors import UsageError
from attar.recipe.load import parse_recipe
from attar.recipe.run import run_resolved
from attar.recipe.running import trackers
from attar.recipe.running.saved import Source
from attar.recipe.running.trackers import tracking

RECIPE = tiny_recipe.RECIPE.partition("[steps.student]")[0]


def test_a_tracker_gets_the_lines_of_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny

    training_runs.write_films(tmp_path / "films")
    tiny.write_tiny_bert(tmp_path / "bert")
    told: list[tuple[str, int, dict[str, float]]] = []

    @contextmanager
    def open_one(run: str, folder: Path) -> Generator[Any]:
        yield lambda step, at, figures: told.append((step, at, dict(figures)))

    monkeypatch.setitem(trackers.TRACKERS, "trackio", open_one)  # pyright: ignore[reportArgumentType]
    recipe = parse_recipe(RECIPE + '\n[run]\nlog = ["trackio"]\n')
    run_resolved(recipe, Source(tmp_path), tmp_path / "run", estimates={})
    history = (tmp_path / "run" / "teacher" / "history.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in history]
    assert [(step, at) for step, at, _ in told] == [("teacher", line["step"]) for line in lines]
    assert told[0][2]["losses.cross_entropy"] == lines[0]["losses"]["cross_entropy"]
    assert told[0][2]["learning_rate"] == lines[0]["learning_rate"]
    assert told[-1][2]["validation.accuracy"] == lines[-1]["validation"]["accuracy"]


def _track_two_steps(name: str, folder: Path) -> None:
    with tracking([name], "run", folder) as track:
        for step in ("teacher", "student"):
            for at in (1, 2, 3):
                line = {"step": at, "loss": 1 / at, "validation": {"accuracy": at / 4}}
                track(step, line)


def test_tensorboard_reads_what_was_tracked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra track is not installed")
    from tensorboard.backend.event_processing import (  # pyright: ignore[reportMissingImports]
        event_accumulator,
    )

    _track_two_steps("tensorboard", tmp_path)
    for step in ("teacher", "student"):
        found = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard" / step))
        found.Reload()
        assert found.Tags()["scalars"] == ["loss", "validation.accuracy"]
        points = [(one.step, one.value) for one in found.Scalars("validation.accuracy")]
        assert points == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_trackio_reads_what_was_tracked_and_stdout_stays_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="the extra track is not installed")
    from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore[reportMissingImports]

    _track_two_steps("trackio", tmp_path)
    for step in ("teacher", "student"):
        logs = SQLiteStorage.get_logs("run", step)
        assert [(one["step"], one["loss"]) for one in logs] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert capfd.readouterr().out == ""


def test_where_a_run_logs_is_in_no_key(tmp_path: Path) -> None:
    from attar.recipe.keys import keys_of
    from engine_steps import FINGERPRINTS, KINDS
    from engine_steps import RECIPE as SMALL

    found = [
        keys_of(recipe, recipe.order, tmp_path, kinds=KINDS, fingerprints=FINGERPRINTS)
        for recipe in (parse_recipe(SMALL), parse_recipe(SMALL + '[run]\nlog = ["tensorboard"]'))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_library_that_is_missing_is_said_before_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    said = rf"'{name}' is not installed .* pip install 'attar\[track\]'"
    with pytest.raises(UsageError, match=said), tracking([name], "run", tmp_path):
        pass
