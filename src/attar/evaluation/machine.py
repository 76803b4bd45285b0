"""Describes the machine that latencies were measured on.

Cores are those that the process may use, which in a container can be fewer than the machine has.
Fractional limits of control groups are included, and the load before the measurement. Only
instruction sets that matter for the speed of small models are listed.
"""

from __future__ import annotations

import platform
from typing import Any

import psutil

from attar.cores import busy_cores, core_limit, usable_cores
from attar.models.deployed.cpu import cpu_field, flags_among

ISA_FLAGS = (
    *("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),  # x86
    *("asimddp", "i8mm", "bf16"),  # Arm
)
"""Names as in Linux. The fastest int8 on x86 needs one of *_vnni or amx_int8."""


def describe_machine(threads: int) -> dict[str, Any]:
    """CPU name, usable cores, threads used for timing, memory, and relevant instruction sets.

    `core_limit` is the number of cores allowed by affinity and control group quotas; `busy_cores`
    is the number in use by other programs. On systems other than Linux, `isa` is empty and
    `busy_cores` is None.
    """
    busy = busy_cores()
    return {
        "cpu": cpu_field("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "core_limit": core_limit(),
        "busy_cores": None if busy is None else round(busy, 2),
        "threads": threads,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "isa": flags_among(ISA_FLAGS),
        "system": f"{platform.system()} {platform.machine()}",
    }
