"""How much memory this process may use, which in a container is less than the machine has.

Three limits are honoured: what the system can give without swapping, the control group's
(version 2), and the limit on this process's address space (`ulimit -v`). Left out: the memory of an
accelerator.
"""

from __future__ import annotations

import resource
from pathlib import Path

MIB = 2**20
CONTROL_GROUP = Path("/sys/fs/cgroup")


def usable_memory_mib() -> float:
    """MiB that this process can have in all: what it holds already, and what is free."""
    import psutil

    own = psutil.Process().memory_info()
    free = [psutil.virtual_memory().available]
    group = [_number(CONTROL_GROUP / f"memory.{name}") for name in ("max", "current")]
    if group[0] is not None and group[1] is not None:
        free.append(max(0, group[0] - group[1]))
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(max(0, limit - own.vms))
    return (own.rss + min(free)) / MIB


def _number(file: Path) -> int | None:
    """The number in a file; None when there is no such file, or it says "max"."""
    text = file.read_text().strip() if file.is_file() else ""
    return int(text) if text.isdecimal() else None
