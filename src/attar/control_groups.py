"""Linux control groups that limit this process, in versions 1 and 2.

A limit can be set on the process's own group or on any parent group; the smallest one applies.

    /proc/self/cgroup      the group's path in each hierarchy    0::/jobs/42    4:cpu,cpuacct:/jobs
    /proc/self/mountinfo   where the hierarchies lie, and which group a mount shows as its root
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")
"""Root folder for `/proc` and mounts; replaced in tests."""
VERSION_2 = "cgroup2"
"""File system type of version 2, which has all controllers in one hierarchy."""


def control_groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of the groups that may limit this process (its own and all parents), and whether they
    are version 2.

    Args:
        controller: "cpu" or "memory".
    """
    groups = _groups(controller)
    for kind, root, mount in _mounts(controller):
        path = groups.get(kind)
        if path is None:
            continue
        # a mount inside a container shows the container's group as its root
        below = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        for group in (below, *below.parents):
            if ".." not in group.parts:
                yield SYSTEM / mount.lstrip("/") / group, kind == VERSION_2


def _groups(controller: str) -> dict[str, str]:
    """Hierarchy (the controller's in version 1, or `VERSION_2`) → path of this process's group."""
    found: dict[str, str] = {}
    for line in kernel_lines(SYSTEM / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controller in controllers.split(","):
            found[controller] = path
        elif not controllers and path:
            found[VERSION_2] = path
    return found


def _mounts(controller: str) -> Iterator[tuple[str, str, str]]:
    """Hierarchy, the group that is the root of the mount, and the mount point."""
    for line in kernel_lines(SYSTEM / "proc/self/mountinfo"):
        mount, _, filesystem = line.partition(" - ")
        fields, about = mount.split(), filesystem.split()
        if len(fields) < 5 or len(about) < 3:
            continue
        if about[0] == VERSION_2:
            yield VERSION_2, fields[3], fields[4]
        elif about[0] == "cgroup" and controller in about[2].split(","):
            yield controller, fields[3], fields[4]


def kernel_lines(file: Path) -> list[str]:
    """Lines of a kernel file; empty if it does not exist or cannot be read."""
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
