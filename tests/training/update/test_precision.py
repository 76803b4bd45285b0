"""bf16 is taken where it is faster, which is measured and not read from flags."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attar.errors import StoppedError
from attar.progress import Progress
from attar.step import StepContext
from attar.training.update import precision
from attar.training.update.precision import (
    PRECISION_FILE,
    ROUNDS,
    Precision,
    choose_precision,
    faster,
    open_accelerator,
)
from training_runs import context_for, prepare, read_weights, run_training

CPU = torch.device("cpu")


class Machine:
    """A clock that work moves on: seconds of float32, and of bf16 beside it."""

    def __init__(self, fp32: Iterator[float], bf16: Iterator[float]) -> None:
        self.now, self.calls = 0.0, []
        self._seconds = {False: fp32, True: bf16}

    def clock(self) -> float:
        return self.now

    def work(self, is_bf16: bool) -> None:
        self.calls.append(is_bf16)
        self.now += next(self._seconds[is_bf16])


def timed(fp32: list[float], bf16: list[float]) -> tuple[Precision, list[bool]]:
    machine = Machine(iter(fp32), iter(bf16))
    return faster(machine.work, machine.clock), machine.calls


def test_what_is_asked_for_is_taken_and_nothing_is_timed() -> None:
    def never(_: bool) -> None:
        raise AssertionError("timed")

    assert choose_precision("fp32", CPU, never).name == "fp32"
    assert choose_precision("bf16", CPU, never).name == "bf16"


@pytest.mark.parametrize(
    ("fp32", "bf16", "name"),
    [(0.77, 0.56, "bf16"), (0.56, 0.77, "fp32"), (0.5, 0.449, "bf16"), (0.5, 0.451, "fp32")],
)
def test_bf16_must_be_faster_by_the_margin(fp32: float, bf16: float, name: str) -> None:
    found, _ = timed([fp32] * 4, [bf16] * 4)
    assert found.name == name
    assert f"bf16 {1000 * bf16:.3g} ms, fp32 {1000 * fp32:.3g} ms" in found.reason


def test_the_first_round_and_a_busy_moment_do_not_count() -> None:
    found, calls = timed([0.1, 0.5, 0.4, 0.4], [1.5, 0.3, 1.5, 0.3])
    assert found.name == "bf16"
    assert calls == [False, True] * (1 + ROUNDS)


def test_slow_work_is_timed_once() -> None:
    found, calls = timed([4.0] * 4, [2.0] * 4)
    assert (found.name, calls) == ("bf16", [False, True] * 2)


def test_memory_that_runs_out_leaves_float32() -> None:
    def work(is_bf16: bool) -> None:
        raise MemoryError

    assert faster(work).name == "fp32"

    def wrong(is_bf16: bool) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        faster(wrong)


def test_emulated_bf16_is_not_even_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False)
    assert choose_precision("auto", CPU).name == "fp32"
    assert "no bf16" in choose_precision("auto", CPU).reason
    assert choose_precision("bf16", CPU).is_emulated


def test_auto_is_fp32_on_another_processor_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> bool:
        raise AttributeError("this torch was built without oneDNN")

    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", missing)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_precision("auto", CPU).name == "fp32"


@pytest.fixture
def has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_bf16_hardware", lambda device: (True, "instructions"))


@pytest.mark.usefixtures("has_bf16")
def test_a_gpu_that_has_bf16_uses_it_and_a_plan_times_a_product() -> None:
    assert choose_precision("auto", torch.device("cuda")).name == "bf16"
    planned = choose_precision("auto", CPU)
    assert planned.reason.startswith("measured: bf16 ")
    assert choose_precision("auto", CPU) is planned


@pytest.mark.usefixtures("has_bf16")
def test_timing_changes_neither_weights_nor_random_numbers(tmp_path: Path) -> None:
    """The weights after training are those of a run that did not time anything."""
    for name in ("timed", "asked"):
        prepare(tmp_path / name)
    found = run_training(tmp_path / "timed", precision="auto")
    assert found["precision_reason"].startswith("measured: bf16 ")
    run_training(tmp_path / "asked", precision=found["precision"])
    ours, theirs = read_weights(tmp_path / "timed"), read_weights(tmp_path / "asked")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    before = torch.random.get_rng_state()
    faster(lambda is_bf16: torch.rand(3))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.usefixtures("has_bf16")
def test_a_resumed_run_keeps_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    polls = iter(range(1000))
    with pytest.raises(StoppedError):
        run_training(tmp_path, precision="auto", should_stop=lambda: next(polls) == 5)
    kept = json.loads((tmp_path / "scratch" / PRECISION_FILE).read_text())
    other = "fp32" if kept["name"] == "bf16" else "bf16"

    def chooses_otherwise(*_: object) -> Precision:
        return Precision(other, "measured: at another moment")

    monkeypatch.setattr(precision, "choose_precision", chooses_otherwise)
    found = run_training(tmp_path, precision="auto")
    assert (found["precision"], found["precision_reason"]) == (kept["name"], kept["reason"])


def test_a_damaged_choice_is_made_again(tmp_path: Path) -> None:
    context = context_for(tmp_path)
    context.scratch.mkdir()
    for content in ("", "{}", '{"name": "fp8", "reason": "x"}', '{"name": "fp32"}'):
        (context.scratch / PRECISION_FILE).write_text(content)
        _, found = open_accelerator("auto", context, lambda is_bf16: None)
        assert found.name in ("bf16", "fp32") and found.reason != "x"


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_the_choice_of_an_earlier_session_is_not_made_again(tmp_path: Path, name: str) -> None:
    context = StepContext("s", tmp_path, tmp_path, {}, {}, tmp_path, Progress(quiet=True))
    (tmp_path / PRECISION_FILE).write_text(json.dumps({"name": name, "reason": "measured"}))
    assert open_accelerator("auto", context)[1] == Precision(name, "measured")  # type: ignore[arg-type]
