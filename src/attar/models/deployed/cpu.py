"""Features of this CPU as reported by Linux; hardware byte products decide how weights are best
stored.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Instruction sets with exact int8 dot products, as spelled by Linux (x86, then Arm)."""


def cpu_field(*names: str) -> str:
    """The first of these fields of the first core; "" if the system does not report it."""
    content = CPU_INFO.read_text(errors="replace") if CPU_INFO.is_file() else ""
    for line in content.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def flags_among(flags: Iterable[str]) -> list[str]:
    """Those instruction sets of `flags` that this CPU has; also empty if the system does not report
    them.
    """
    has = set(cpu_field("flags", "Features").split())
    return [flag for flag in flags if flag in has]


def int8_flags() -> list[str]:
    """Those of `INT8_FLAGS` that this CPU has."""
    return flags_among(INT8_FLAGS)


def needs_unsigned_weights() -> bool:
    """Whether this is an x86 CPU known to add byte products in 16 bits, where u8 × s8 saturates."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
    return is_x86 and CPU_INFO.is_file() and not int8_flags()
