"""What is told about the machine is what this process may use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from attar.evaluation import machine


def test_cores_are_those_this_process_may_use() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no CPU affinity on this system")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("", 8)]
)
def test_cores_are_limited_by_the_control_group(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert machine.usable_cores() == cores


def test_cpu_and_instruction_sets_are_read_from_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = "processor\t: 0\nmodel name\t: Some CPU @ 2.6GHz\nflags\t\t: fpu avx2 avx512_vnni sse2\n"
    (tmp_path / "cpuinfo").write_text(cpu * 2)
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    told = machine.describe_machine(3)
    assert (told["cpu"], told["threads"]) == ("Some CPU @ 2.6GHz", 3)
    assert told["isa"] == ["avx2", "avx512_vnni"]
    assert told["memory_gib"] > 0
    json.dumps(told)


def test_a_system_that_does_not_tell_gets_a_name_and_no_instruction_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "absent")
    told = machine.describe_machine(1)
    assert told["cpu"]
    assert told["isa"] == []
