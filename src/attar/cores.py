"""How many cores this process may use, which in a container are fewer than the machine has.

Two limits are honoured: the CPU affinity, and the quota of the control group where there is one
(version 2 of Linux' control groups; version 1 keeps it elsewhere and is left out). More threads
than that wait for each other.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores this process may use, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = CPU_QUOTA.read_text() if CPU_QUOTA.is_file() else ""
    return max(1, min(cores, _cores_of_quota(quota)))


def _cores_of_quota(text: str) -> int:
    """`cpu.max` says "<microseconds> <period>" or "max <period>"; a part of a core counts as one.

    Example:
        >>> _cores_of_quota("150000 100000"), _cores_of_quota("max 100000") > 1000
        (2, True)
    """
    words = text.split()
    if len(words) != 2 or words[0] == "max":
        return 2**31
    return math.ceil(int(words[0]) / int(words[1]))
