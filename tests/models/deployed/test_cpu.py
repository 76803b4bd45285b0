from __future__ import annotations

from pathlib import Path

import pytest

from attar.models.deployed import cpu


def test_flags_are_read_from_the_first_core(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n")
    assert cpu.int8_flags(info) == ["avx512_vnni", "amx_int8"]
    info.write_text("processor : 0\nFeatures : fp asimd asimddp\n")
    assert cpu.int8_flags(info) == ["asimddp"]


def test_nothing_is_claimed_where_the_system_does_not_tell(tmp_path: Path) -> None:
    assert cpu.int8_flags(tmp_path / "missing") == []
    (tmp_path / "empty").write_text("")
    assert cpu.int8_flags(tmp_path / "empty") == []


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "avx2", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("aarch64", "asimd", False),
    ],
)
def test_only_an_x86_cpu_without_byte_products_wants_unsigned_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, expected: bool
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(cpu, "CPU_INFO", info)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert cpu.needs_unsigned_weights() is expected
