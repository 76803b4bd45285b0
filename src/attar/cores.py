"""How many cores this process may use, which in a container are fewer than the machine has.

Two limits count: the CPU affinity, and the quotas of Linux' control groups, of both versions. A
quota may be set on the process's own group or on any group above it, and the smallest one holds.
More threads than that wait for each other.

    /proc/self/cgroup      the group's path in each hierarchy    0::/jobs/42    4:cpu,cpuacct:/jobs
    /proc/self/mountinfo   where the hierarchies lie, and which group a mount shows as its root
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")
"""What `/proc` and the mounts are looked up in; a test passes a folder of its own."""


def usable_cores() -> int:
    """Cores this process may use, at least 1; a part of a core counts as one."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_quotas()])))


def _quotas() -> Iterator[float]:
    """Cores that each limited group allows: the process's own ones and all above them."""
    groups = _groups()
    for kind, root, mount in _mounts():
        path = groups.get(kind)
        if path is None:
            continue
        # a mount inside a container shows the container's group as its root
        below = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        for group in (below, *below.parents):
            if ".." not in group.parts:
                yield from _quota_of(SYSTEM / mount.lstrip("/") / group, kind)


def _groups() -> dict[str, str]:
    """Hierarchy, "cpu" in version 1 and "cgroup2" in version 2 → the path of this process's
    group."""
    found: dict[str, str] = {}
    for line in _lines(SYSTEM / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if "cpu" in controllers.split(","):
            found["cpu"] = path
        elif not controllers and path:
            found["cgroup2"] = path
    return found


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Hierarchy, the group that the mount shows as its root, and the place of the mount."""
    for line in _lines(SYSTEM / "proc/self/mountinfo"):
        mount, _, filesystem = line.partition(" - ")
        fields, about = mount.split(), filesystem.split()
        if len(fields) < 5 or len(about) < 3:
            continue
        if about[0] == "cgroup2":
            yield "cgroup2", fields[3], fields[4]
        elif about[0] == "cgroup" and "cpu" in about[2].split(","):
            yield "cpu", fields[3], fields[4]


def _quota_of(group: Path, kind: str) -> Iterator[float]:
    """Cores that one group allows; nothing where it has no limit.

    Version 2 has "<microseconds> <period>" or "max <period>" in one file, version 1 has two files,
    and −1 for no limit.
    """
    names = ("cpu.max",) if kind == "cgroup2" else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    words = " ".join(line for name in names for line in _lines(group / name)).split()
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
        yield int(words[0]) / int(words[1])


def _lines(file: Path) -> list[str]:
    """Of a file of the kernel; none where there is no such file, or it may not be read."""
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
