"""What the figures were measured on: a latency means nothing without the machine under it.

Cores are those this process may use, which in a container are fewer than the machine has. Of the
instruction sets only those
are named that decide about the speed of small models: int8 dot products and bf16.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import psutil

from attar.cores import usable_cores

CPU_INFO = Path("/proc/cpuinfo")
ISA_FLAGS = (
    *("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),  # x86
    *("asimddp", "i8mm", "bf16"),  # Arm
)
"""As Linux spells them; fastest int8 on x86 needs one of the *_vnni or amx_int8."""


def describe_machine(threads: int) -> dict[str, Any]:
    """CPU name, usable cores, threads used for timing, memory, instruction sets that matter.

    `isa` is empty where the system does not tell (not Linux).
    """
    cpu_info = CPU_INFO.read_text(errors="replace") if CPU_INFO.is_file() else ""
    flags = set(_field(cpu_info, "flags", "Features").split())
    name = _field(cpu_info, "model name") or platform.processor() or platform.machine()
    return {
        "cpu": name,
        "cores": usable_cores(),
        "threads": threads,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _field(cpu_info: str, *names: str) -> str:
    for line in cpu_info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""
