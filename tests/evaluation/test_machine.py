"""What is told about the machine is what this process may use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attar.evaluation import machine
from attar.models.deployed import cpu


def test_cpu_and_instruction_sets_are_read_from_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = "processor\t: 0\nmodel name\t: Some CPU @ 2.6GHz\nflags\t\t: fpu avx2 avx512_vnni sse2\n"
    (tmp_path / "cpuinfo").write_text(core * 2)
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    told = machine.describe_machine(3)
    assert (told["cpu"], told["threads"]) == ("Some CPU @ 2.6GHz", 3)
    assert told["isa"] == ["avx2", "avx512_vnni"]
    assert told["memory_gib"] > 0
    json.dumps(told)


def test_a_system_that_does_not_tell_gets_a_name_and_no_instruction_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "absent")
    told = machine.describe_machine(1)
    assert told["cpu"]
    assert told["isa"] == []
