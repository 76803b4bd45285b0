from __future__ import annotations

from pathlib import Path

import pytest

from attar.models.deployed import cpu


@pytest.fixture
def info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the system tells; nothing yet."""
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_flags_are_read_from_the_first_core(info: Path) -> None:
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni amx_int8\nflags : avx_vnni\n")
    assert cpu.int8_flags() == ["avx512_vnni", "amx_int8"]
    info.write_text("processor : 0\nFeatures : fp asimd asimddp\n")
    assert cpu.int8_flags() == ["asimddp"]


def test_nothing_is_claimed_where_the_system_does_not_tell(info: Path) -> None:
    assert cpu.int8_flags() == []
    info.write_text("")
    assert cpu.int8_flags() == []


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "avx2", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("aarch64", "asimd", False),
    ],
)
def test_only_an_x86_cpu_without_byte_products_wants_unsigned_weights(
    info: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, expected: bool
) -> None:
    info.write_text(f"flags : {flags}\n")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert cpu.needs_unsigned_weights() is expected
