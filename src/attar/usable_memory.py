"""Amount of memory that this process may use, which in a container is less than the machine has.

Three limits are considered: available memory without swapping, control group limits, and the limit
of the process's address space (`ulimit -v`). Left out: accelerator memory.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from attar.control_groups import control_groups, kernel_lines

MIB = 2**20
LIMIT_AND_USE = {
    True: ("memory.max", "memory.current"),
    False: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
"""Whether a control group is version 2 → its files."""
CACHED_FILES = ("inactive_file", "active_file")
"""Entries of `memory.stat` that count as used but are released when memory is needed."""


def usable_memory_mib() -> float:
    """Total memory available to this process in MiB: what it uses already plus what is free."""
    import psutil

    own = psutil.Process().memory_info()
    free = [psutil.virtual_memory().available, *_free_of_groups()]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(max(0, limit - own.vms))
    return (own.rss + min(free)) / MIB


def _free_of_groups() -> Iterator[int]:
    """Free bytes of each control group with a limit."""
    for group, is_version_2 in control_groups("memory"):
        words = [" ".join(kernel_lines(group / name)) for name in LIMIT_AND_USE[is_version_2]]
        if not all(word.isdecimal() for word in words):  # no such file, or "max"
            continue
        limit, used = map(int, words)
        before = "" if is_version_2 else "total_"
        names = {before + name for name in CACHED_FILES}
        fields = [line.split() for line in kernel_lines(group / "memory.stat")]
        cached = sum(int(field[1]) for field in fields if field[0] in names)
        yield max(0, limit - used + cached)


def kernel_peak_mib() -> float | None:
    """Peak resident memory of this process according to Linux (VmHWM), in MiB; None: unknown."""
    fields = (line.split() for line in kernel_lines(Path("/proc/self/status")))
    return next((int(field[1]) / 1024 for field in fields if field[:1] == ["VmHWM:"]), None)
