"""Threads for as many cores as this process may use, wherever they are counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attar import control_groups, cores


def test_cores_are_those_this_process_may_use() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no CPU affinity on this system")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


CGROUP_2 = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
CPU_1 = "33 31 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct"
MEMORY_1 = "36 31 0:33 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"


def system(
    folder: Path, monkeypatch: pytest.MonkeyPatch, groups: str, mounts: str, files: dict[str, str]
) -> None:
    """A machine of 8 cores with these files of the kernel; what they are called is below
    /sys/fs/cgroup."""
    written = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    written |= {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    for name, content in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")
    monkeypatch.setattr(control_groups, "SYSTEM", folder)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"jobs/cpu.max": "max 100000", "jobs/42/cpu.max": "150000 100000"}, 2),
        ({"jobs/cpu.max": "100000 100000", "jobs/42/cpu.max": "400000 100000"}, 1),
        ({"jobs/cpu.max": "400000 100000", "jobs/42/cpu.max": "max 100000"}, 4),
        ({"cpu.max": "300000 100000", "jobs/42/cpu.max": "500000 100000"}, 3),
        ({"jobs/42/cpu.max": "5000 100000"}, 1),
        ({"jobs/43/cpu.max": "100000 100000"}, 8),  # another job's
        ({"jobs/42/cpu.max": ""}, 8),
        ({"jobs/42/cpu.max": "0 0"}, 8),
        ({}, 8),
    ],
)
def test_the_smallest_quota_of_the_groups_above_a_process_counts(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system(tmp_path, monkeypatch, "0::/jobs/42", CGROUP_2.format(root="/"), files)
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [({"": "-1", "jobs": "250000"}, 3), ({"": "200000", "jobs": "-1"}, 2), ({"jobs": "-1"}, 8)],
)
def test_quotas_of_version_1_count_too(
    quotas: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"memory/cpu.cfs_quota_us": "1", "memory/cpu.cfs_period_us": "1"}  # not the place
    for group, quota in quotas.items():
        files[f"cpu,cpuacct/{group}/cpu.cfs_quota_us"] = quota
        files[f"cpu,cpuacct/{group}/cpu.cfs_period_us"] = "100000"
    groups = "5:memory:/\n4:cpu,cpuacct:/jobs\n0::/"
    mounts = "\n".join([MEMORY_1, CPU_1.format(root="/")])
    system(tmp_path, monkeypatch, groups, mounts, files)
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(
    ("group", "root"),
    [
        ("/docker/ab12/work", "/docker/ab12"),  # a container that sees the host's names
        ("/work", "/"),  # one with names of its own
        ("/../other", "/"),  # a process that was moved out of what the mount shows
        ("/elsewhere", "/docker/ab12"),
    ],
)
def test_a_container_sees_its_own_group_as_the_root(
    group: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"cpu.max": "300000 100000", "work/cpu.max": "max 100000"}
    (tmp_path / "sys/fs/other").mkdir(parents=True)
    (tmp_path / "sys/fs/other/cpu.max").write_text("100000 100000")
    system(tmp_path, monkeypatch, f"0::{group}", CGROUP_2.format(root=root), files)
    assert cores.usable_cores() == 3


@pytest.mark.parametrize("odd", ["", "nonsense", "0", "0::", "::", " - ", "a b c d e - cgroup2 x"])
def test_odd_files_of_the_kernel_limit_nothing(
    odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system(tmp_path, monkeypatch, odd, odd, {})
    assert cores.usable_cores() == 8
    monkeypatch.setattr(control_groups, "SYSTEM", tmp_path / "none")  # no Linux
    assert cores.usable_cores() == 8
