"""A run: what is made, what is reused, what is left behind, and what a crash or a gate does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from attar.artifacts import read_result, verify
from attar.errors import ArtifactError, GateMissedError, ResourceError, UsageError
from attar.recipe.running.memory import memory_explained
from engine_steps import RECIPE, run_small, start_small

GATE = '[[gates]]\nmetric = "scores.int8.accuracy"\nat_least = {}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "small"


def made(folder: Path, text: str = RECIPE, **settings: object) -> list[str]:
    """Names of the steps that were not reused."""
    return [step.name for step in run_small(folder, text, **settings).steps if not step.reused]


def test_every_step_is_published_with_its_manifest_and_nothing_else_is_left(folder: Path) -> None:
    summary = run_small(folder)
    for step in summary.steps:
        result = verify(folder / step.name)
        assert result.key == step.key
        assert result.step == step.name
        assert result.peak_rss_mib > 1
        assert result.versions["torch"]
    assert read_result(folder / "scores").inputs.keys() == {"teacher", "student", "int8"}
    assert read_result(folder / "int8").inputs == {"student": read_result(folder / "student").key}
    left = {path.name for path in folder.iterdir()}
    assert left == {"teacher", "student", "int8", "scores", "report"} | {
        "recipe.json",
        "recipe.toml",
        ".lock",
        "run.log",
        ".scratch",
    }
    assert not any((folder / ".scratch").iterdir())


def test_a_second_run_reuses_everything_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_small(folder)
    second = run_small(folder, quiet=False)
    assert [step.reused for step in second.steps] == [True] * 5
    assert [step.metrics for step in second.steps] == [step.metrics for step in first.steps]
    assert [step.seconds for step in second.steps] == [step.seconds for step in first.steps]
    key = first.steps[1].key
    assert f"step 2/5 student (train): reused, same key {key}" in capsys.readouterr().err


def test_a_changed_setting_runs_only_what_depends_on_it(folder: Path) -> None:
    run_small(folder)
    changed = RECIPE.replace('method = "minmax"', 'method = "minmax"\nweight_bits = 4')
    assert made(folder, changed) == ["int8", "scores", "report"]
    assert read_result(folder / "int8").metrics == {"weight_bits": 4}
    assert made(folder, changed) == []
    assert made(folder, RECIPE) == ["int8", "scores", "report"]


def test_a_step_that_was_removed_is_made_again_and_those_after_it_are_reused(folder: Path) -> None:
    run_small(folder)
    shutil.rmtree(folder / "student")
    assert made(folder) == ["student"]


def test_a_folder_that_is_no_artifact_is_never_replaced(folder: Path) -> None:
    (folder / "student").mkdir(parents=True)
    (folder / "student" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"in the way of step 'student' and is not an artifact"):
        run_small(folder)
    assert (folder / "student" / "thesis.txt").read_text() == "years of work"


def test_a_run_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "small"):
        with pytest.raises(UsageError, match="choose one with --out"):
            run_small(folder)


def test_a_folder_the_system_will_not_have_is_a_usage_error_with_its_reason() -> None:
    with pytest.raises(UsageError, match=r"/proc/x/small cannot be the folder of a run: No such"):
        run_small(Path("/proc/x/small"))
    with pytest.raises(UsageError, match=r"cannot be the folder of a run: File name too long"):
        run_small(Path("x" * 300))


def test_a_run_folder_that_cannot_be_written_is_a_usage_error_with_its_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / ".lock").mkdir()  # refused to everyone, root too
    with pytest.raises(UsageError, match=r"\.lock is a link, a folder or a device") as told:
        run_small(tmp_path)
    assert str(tmp_path) in str(told.value)
    assert "another folder with --out" in str(told.value)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_memory_that_is_short_names_the_step_and_what_to_lower(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_memory: bool
) -> None:
    def without_memory(config: object, context: object) -> None:
        raise error

    monkeypatch.setattr("engine_steps.quantize", without_memory)
    with pytest.raises(ResourceError if is_memory else RuntimeError) as told:
        run_small(folder)
    if is_memory:
        assert "memory ran out in step 'int8'" in str(told.value)
        assert "lower batch_size, micro_batch_size or max_length" in str(told.value)
    assert (folder / "crash.txt").exists() != is_memory
    assert verify(folder / "student")


def test_what_torch_says_of_memory_it_cannot_have_is_understood() -> None:
    with (
        pytest.raises(ResourceError, match="memory ran out in step 'big'"),
        memory_explained("big"),
    ):
        torch.empty(2**60, dtype=torch.uint8)


def test_a_sealed_leftover_never_replaces_a_folder_that_is_no_artifact(folder: Path) -> None:
    key = next(step.key for step in run_small(folder).steps if step.name == "student")
    (folder / ".staging").mkdir()
    (folder / "student").rename(folder / ".staging" / f"student-{key}")
    (folder / "student").mkdir()
    (folder / "student" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"in the way of step 'student' and is not an artifact"):
        run_small(folder)
    assert (folder / "student" / "thesis.txt").read_text() == "years of work"


def test_a_crash_that_cannot_be_kept_warns_on_stderr(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(config: object, context: object) -> None:
        (folder / "crash.txt").mkdir()
        raise ZeroDivisionError

    monkeypatch.setattr("engine_steps.train", crash)
    with pytest.raises(ZeroDivisionError):
        run_small(folder)
    said = capsys.readouterr()
    assert "warning: no crash.txt could be written" in said.err
    assert said.out == ""


def test_a_gate_that_is_met_is_written_down(folder: Path) -> None:
    summary = run_small(folder, RECIPE + GATE.format(0.01))
    assert [gate.passed for gate in summary.gates] == [True]
    assert json.loads((folder / "gates.json").read_text())[0]["passed"] is True


def test_a_missed_gate_ends_the_run_after_everything_is_saved(folder: Path) -> None:
    with pytest.raises(GateMissedError, match=r"1 of 1 gates missed.*must be at least 2") as caught:
        run_small(folder, RECIPE + GATE.format(2))
    assert caught.value.exit_code == 6
    assert verify(folder / "report")
    assert made(folder, RECIPE + GATE.format(2), enforce_gates=False) == []


def test_gates_of_another_recipe_do_not_linger(folder: Path) -> None:
    run_small(folder, RECIPE + GATE.format(0.01))
    run_small(folder)
    assert not (folder / "gates.json").exists()


def test_a_bug_keeps_its_traceback_and_the_finished_steps(folder: Path) -> None:
    process = start_small(folder, crash="int8:0")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ZeroDivisionError: a bug, on purpose" in err
    crash = (folder / "crash.txt").read_text()
    assert "a bug, on purpose" in crash
    assert "torch" in crash.splitlines()[0]
    assert made(folder) == ["int8", "scores", "report"]
    assert not (folder / "crash.txt").exists()


def test_the_time_left_is_told_only_when_it_can_be_known(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = dict.fromkeys(["teacher", "student", "int8", "scores", "report"], 60.0)
    run_small(folder / "a", quiet=False, estimates=seconds)
    said = capsys.readouterr().err
    assert "step 1/5 teacher (train), about 5 min 00 s left in total" in said
    assert re.search(r"step 2/5 student \(train\), about [\d.]+ s left in total", said)
    run_small(folder / "b", quiet=False, estimates={})
    assert "left in total" not in capsys.readouterr().err
