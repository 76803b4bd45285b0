"""How many cores this process may use, which in a container are fewer than the machine has.

Two limits count: the CPU affinity, and the quotas of control groups (`attar.control_groups`). More
threads than that wait for each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from attar.control_groups import control_groups, kernel_lines


def usable_cores() -> int:
    """Cores this process may use, at least 1; a part of a core counts as one."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_quotas()])))


def _quotas() -> Iterator[float]:
    """Cores that each limited group allows."""
    for group, is_version_2 in control_groups("cpu"):
        yield from _quota_of(group, is_version_2)


def _quota_of(group: Path, is_version_2: bool) -> Iterator[float]:
    """Cores that one group allows; nothing where it has no limit.

    Version 2 has "<microseconds> <period>" or "max <period>" in one file, version 1 has two files,
    and −1 for no limit.
    """
    names = ("cpu.max",) if is_version_2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    words = " ".join(line for name in names for line in kernel_lines(group / name)).split()
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
        yield int(words[0]) / int(words[1])
