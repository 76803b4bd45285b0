"""What the figures were measured on: a latency means nothing without the machine under it.

Cores are those this process may use, which in a container are fewer than the machine has; where a
control group allows a part of a core, that is said too, and how busy the machine was before
anything was measured. Of the instruction sets only those are named that decide about the speed of
small models.
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
"""As Linux spells them; fastest int8 on x86 needs one of the *_vnni or amx_int8."""


def describe_machine(threads: int) -> dict[str, Any]:
    """CPU name, usable cores, threads used for timing, memory, instruction sets that matter.

    `core_limit` counts the cores of the affinity and of the control groups' quotas, `busy_cores`
    those that other programs use now. `isa` is empty, and `busy_cores` None, where the system does
    not tell (not Linux).
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
