"""Row 21: `resume` with other data, another model or other code is refused with what differs, or
begins anew when that is asked for; nothing starts at step 1 in silence."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import attar.recipe.run as run_module
from attar.errors import UsageError
from attar.recipe.keys import room_fingerprints
from attar.recipe.run import resume_run
from attar.recipe.running.saved import read_saved
from engine_steps import KINDS, RECIPE, run_small, start_small, until_waiting
from training_runs import write_films

FILMS = RECIPE.replace('source = "stdlib_docs"', 'source = "files"\npath = "films"').replace(
    "demo:minilm-l6", "bert"
)


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped within its student, with data and a model of its own."""
    write_films(tmp_path / "films")
    shutil.copytree(tiny_bert, tmp_path / "bert")
    folder = tmp_path / "small"
    process = start_small(folder, at="student:2", recipe=FILMS, fingerprints="rooms")
    until_waiting(folder, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    use_small_steps(monkeypatch)
    return folder


def use_small_steps(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Let `resume_run` run the steps of `engine_steps`."""
    run = run_module.run_resolved
    given = {"kinds": KINDS, "fingerprints": room_fingerprints(), "estimates": {}, **settings}
    monkeypatch.setattr(run_module, "run_resolved", lambda *a, **k: run(*a, **{**given, **k}))


def change_data(folder: Path) -> None:
    with (folder.parent / "films" / "train.jsonl").open("a") as stream:
        stream.write('{"text": "a great film", "label": "good"}\n')


def change_model(folder: Path) -> None:
    weights = folder.parent / "bert" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))


def scratch(folder: Path) -> list[str]:
    return [path.name for path in (folder / ".scratch").iterdir()]


@pytest.mark.parametrize(
    ("change", "said"),
    [(change_data, "the content of data 'docs' ("), (change_model, "the files of model 'bert' (")],
)
def test_what_differs_is_refused_by_name_and_everything_stays(
    folder: Path, change: Any, said: str
) -> None:
    before, progress = read_saved(folder), scratch(folder)
    change(folder)
    with pytest.raises(UsageError) as caught:
        resume_run(folder, quiet=True)
    assert f"\n  - teacher: {said}" in str(caught.value)
    assert f"attar resume {folder} --accept-changes" in str(caught.value)
    assert "its input" not in str(caught.value), "only what changed itself is listed"
    assert read_saved(folder) == before
    assert scratch(folder) == progress
    with pytest.raises(UsageError):
        resume_run(folder, quiet=True)


def test_data_that_is_put_back_goes_on_where_the_run_was(folder: Path) -> None:
    file = folder.parent / "films" / "train.jsonl"
    before = file.read_bytes()
    change_data(folder)
    with pytest.raises(UsageError):
        resume_run(folder, quiet=True)
    file.write_bytes(before)
    steps = resume_run(folder, quiet=True).steps
    assert [step.name for step in steps if step.reused] == ["teacher"]


def test_accepted_changes_begin_anew_and_say_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_data(folder)
    steps = resume_run(folder, accept_changes=True).steps
    assert [step.name for step in steps if step.reused] == []
    said = capsys.readouterr().err
    assert "teacher  replace  the content of data 'docs' (" in said
    assert "warning: student: partial work in " in said
    assert scratch(folder) == []
    assert all(step.reused for step in resume_run(folder, quiet=True).steps)


def test_other_code_of_a_step_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_steps(monkeypatch, kinds={**KINDS, "train": replace(KINDS["train"], version=9)})
    with pytest.raises(UsageError, match=r"attar's code of this step: version 2 → 9"):
        resume_run(folder, quiet=True)


def test_run_with_other_data_says_what_was_begun_and_does_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_data(folder)
    run_small(folder, FILMS, fingerprints=room_fingerprints())
    assert "student: partial work in " in capsys.readouterr().err


def test_a_run_whose_data_is_missing_forgets_nothing(folder: Path) -> None:
    before = read_saved(folder)
    (folder.parent / "films").rename(folder.parent / "elsewhere")
    for accept in (False, True):
        with pytest.raises(Exception, match="films"):
            resume_run(folder, accept_changes=accept, quiet=True)
    assert read_saved(folder) == before
