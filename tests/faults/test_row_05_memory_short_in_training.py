"""Row 5: memory short in training: the micro-batch is halved and said, the whole batch and its loss
curve stay. With a real limit on the memory of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from attar.errors import StoppedError, ran_out_of_memory
from attar.training.update.guard import halving
from training_runs import prepare, read_history, read_weights, run_training, write_films

ROWS = 4096
LIMITED = """
import json, resource, sys
from pathlib import Path
from training_runs import prepare, run_training

place, spare_mib, settings = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
run_training(prepare(place / "warm"), max_steps=1)  # what is imported and mapped once
words = Path("/proc/self/status").read_text().split()
now = int(words[words.index("VmSize:") + 1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + spare_mib * 2**20,) * 2)
print(json.dumps(run_training(place, **settings)))
"""
SPARE_MIB = 160
"""A step of the whole batch does not fit into it, a step of an eighth of it does."""


def place_of(folder: Path) -> Path:
    """Many rows, and a model without dropout: its masks depend on the shape of a micro-batch."""
    prepare(folder)
    write_films(folder / "films", train=ROWS)
    config = json.loads((folder / "bert" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "bert" / "config.json").write_text(json.dumps(config))
    return folder


def run_limited(place: Path, spare_mib: int, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(place), str(spare_mib), json.dumps(settings)]
    tests_folder = str(Path(__file__).parents[1])
    surroundings = {**os.environ, "PYTHONPATH": tests_folder, "MALLOC_MMAP_THRESHOLD_": "65536"}
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)


WHOLE = {"batch_size": ROWS, "max_steps": 2, "evaluations": 1}


@pytest.mark.slow
def test_the_micro_batch_is_halved_and_the_loss_curve_stays(tmp_path: Path) -> None:
    whole, short = place_of(tmp_path / "whole"), place_of(tmp_path / "short")
    run_training(whole, **WHOLE)
    done = run_limited(short, SPARE_MIB, **WHOLE)
    assert done.returncode == 0, done.stderr
    size = json.loads(done.stdout.splitlines()[-1])["micro_batch_size"]
    assert 1 < size < ROWS
    assert f"continuing with micro_batch_size = {size}; loss and gradient stay" in done.stderr
    assert "memory ran out (" in done.stderr
    for ours, expected in zip(read_history(short), read_history(whole), strict=True):
        if "loss" in expected:
            assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-5)
            assert ours["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


TAUGHT: dict[str, Any] = {
    "model": {"from": "bert", "keep_blocks": [1]},
    "teacher": "bert",
    "losses": [{"kind": "eofd", "std": "running"}, {"kind": "forward_kl"}],
}
"""One of the losses remembers what it has seen of the teacher."""


def run_out_once(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Memory runs out after the `at`-th backward pass, whose gradient is then there already."""
    from accelerate import Accelerator

    calls = iter(range(10**6))
    backward = Accelerator.backward

    def short(self: Accelerator, loss: torch.Tensor, **settings: Any) -> None:
        backward(self, loss, **settings)
        if next(calls) == at:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")

    monkeypatch.setattr(Accelerator, "backward", short)


@pytest.mark.parametrize("settings", [{}, TAUGHT])
def test_an_attempt_that_failed_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Bit for bit the run that had the smaller micro-batch from the beginning."""
    small, short = prepare(tmp_path / "small"), prepare(tmp_path / "short")
    run_training(small, micro_batch_size=4, **settings)
    run_out_once(monkeypatch, at=0)
    metrics = run_training(short, **settings)
    assert metrics["micro_batch_size"] == 4
    assert read_history(short) == read_history(small)
    ours, expected = read_weights(short), read_weights(small)
    assert ours.keys() == expected.keys()
    for name in expected:
        assert torch.equal(ours[name], expected[name]), name


def test_a_resumed_run_keeps_the_micro_batch_that_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, short = prepare(tmp_path / "small"), prepare(tmp_path / "short")
    run_training(small, micro_batch_size=4)
    polls = iter(range(1000))
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        run_out_once(patch, at=0)
        run_training(short, should_stop=lambda: next(polls) == 5)
    assert run_training(short)["micro_batch_size"] == 4
    assert read_history(short) == read_history(small)


def test_halving_ends_at_one_and_passes_other_errors() -> None:
    tried: list[int] = []

    def never(size: int) -> None:
        tried.append(size)
        raise MemoryError

    told: list[tuple[int, str]] = []
    with pytest.raises(MemoryError):
        halving(never, 10, lambda size, reason: told.append((size, reason)))
    assert tried == [10, 5, 3, 2, 1]
    assert told == [(size, "MemoryError") for size in tried[1:]]

    def other(size: int) -> None:
        tried.append(size)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        halving(other, 10, lambda size, reason: told.append((size, reason)))
    assert tried[5:] == [10]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("std::bad_alloc"), True),
        (ValueError("can't allocate memory"), False),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_what_says_that_memory_is_short(error: Exception, is_memory: bool) -> None:
    assert ran_out_of_memory(error) == is_memory
