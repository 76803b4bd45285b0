"""Whether this CPU multiplies bytes four at a time, which decides how weights are best stored."""

from __future__ import annotations

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Instruction sets with exact int8 dot products, as Linux spells them (x86, then Arm)."""


def int8_flags(cpu_info: Path | None = None) -> list[str]:
    """Those of `INT8_FLAGS` that this CPU has; empty too where the system does not tell."""
    cpu_info = cpu_info or CPU_INFO
    if not cpu_info.is_file():
        return []
    for line in cpu_info.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return [flag for flag in INT8_FLAGS if flag in value.split()]
    return []


def needs_unsigned_weights() -> bool:
    """True on an x86 CPU known to add byte products in 16 bits, where u8 × s8 saturates."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
    return is_x86 and CPU_INFO.is_file() and not int8_flags()
