"""Threads for as many cores as this process may use, and a way of waiting that fits the machine."""

from __future__ import annotations

import os
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("limit", "allowed", "busy", "spins"),
    [
        (2, 2, 0.0, True),
        (2, 2, 0.4, True),
        (2, 2, 1.0, False),
        (2, 2, 6.0, False),
        (16, 16, 1.0, True),
        (2, 16, 13.0, True),  # a quota of two cores, and three are free
        (2, 16, 15.0, False),
        (1.5, 16, 0.0, False),  # spinning would use up the quota
        (2, 2, None, True),
    ],
)
def test_threads_spin_only_where_cores_are_free(
    limit: float, allowed: int, busy: float | None, spins: bool
) -> None:
    assert cores._decided(limit, allowed, busy).spins is spins


def test_busy_cores_are_those_that_the_affinity_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = """cpu  900 0 0 900 0 0 0 0 0 0
cpu0 10 20 30 400 500 1 2 3 7 7
cpu1 100 0 0 0 0 0 0 0 0 0
cpu12 1000 0 0 0 0 0 0 0 0 0
intr 5
cpufreq 1"""
    system(tmp_path, monkeypatch, "", "", {})
    (tmp_path / "proc" / "stat").write_text(stat)
    assert cores._ticks({0}) == (66, 966)
    assert cores._ticks({0, 1}) == (166, 1066)
    assert cores._ticks({5}) == (0, 0)
    assert cores.busy_cores() is None  # it stands still
    (tmp_path / "proc" / "stat").write_text("cpu0 odd\ncpu1\ncpu 1 2 3 4 5 6 7 8")
    assert cores._ticks({0, 1}) == (0, 0)
    monkeypatch.setattr(control_groups, "SYSTEM", tmp_path / "none")
    assert cores.busy_cores() is None


def test_a_busy_neighbour_is_seen() -> None:
    if cores.busy_cores() is None:
        pytest.skip("this system does not say how busy its cores are")
    wait = "import sys; print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", wait], stdout=subprocess.PIPE) as neighbour:
        try:
            assert neighbour.stdout and neighbour.stdout.readline()
            found = [cores.busy_cores() or 0.0 for _ in range(5)]
        finally:
            neighbour.kill()
    assert max(found) > 0.5


CHOOSE = """
import os, sys
from attar import cores
cores.busy_cores = lambda: float({busy!r})
{first}
told = cores.prepare_torch()
print(os.environ.get("OMP_WAIT_POLICY"), told.spins, told.reason, sep="|")
"""


def chosen(busy: float, first: str = "", **environment: str) -> list[str]:
    """Policy of OpenMP, whether threads spin, and the reason, in a process of its own."""
    plain = {name: value for name, value in os.environ.items() if name not in cores.SET_BY_USER}
    code = CHOOSE.format(busy=busy, first=first)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**plain, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().split("|")


def test_torch_is_told_before_it_is_loaded_unless_the_user_has_said_it() -> None:
    assert chosen(0)[:2] == ["None", "True"]
    assert chosen(99)[:2] == ["PASSIVE", "False"]
    assert chosen(99, OMP_WAIT_POLICY="ACTIVE") == ["ACTIVE", "True", "OMP_WAIT_POLICY=ACTIVE"]
    assert chosen(0, OMP_WAIT_POLICY="passive")[1] == "False"
    assert chosen(99, GOMP_SPINCOUNT="5") == ["None", "False", "GOMP_SPINCOUNT=5"]
    late = chosen(99, first="sys.modules['torch'] = sys")
    assert late == ["None", "True", "torch was loaded before attar could choose"]


def test_torch_gets_another_number_of_threads_and_then_its_own_back() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    other = 1 if before != 1 else 2
    with cores.torch_threads(other):
        assert torch.get_num_threads() == other
    assert torch.get_num_threads() == before


def test_torch_gets_its_threads_back_after_an_error() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with pytest.raises(KeyError), cores.torch_threads(1 if before != 1 else 2):
        raise KeyError
    assert torch.get_num_threads() == before
