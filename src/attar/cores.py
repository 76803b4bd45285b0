"""Number of cores that this process may use, and how its threads wait for each other.

In a container, CPU affinity and control group quotas (`attar.control_groups`) can limit a process
to fewer cores than the machine has. More threads than cores would wait for each other.

Threads that share a computation wait for the slowest one many times per millisecond. A *spinning*
thread keeps its core while it waits and continues immediately; a *sleeping* thread releases the
core and wakes a little later. On an idle machine, spinning is up to 10 % faster. With other
programs, or with a quota that is not a whole number of cores, it occupies the core that the slowest
thread needs: a training step of 1.25 s took 5.0 s with two other busy processes. OpenMP decides
once, when torch is loaded, so the load is measured before.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attar import control_groups
from attar.control_groups import control_groups as groups_of
from attar.control_groups import kernel_lines

POLICY = "OMP_WAIT_POLICY"
SET_BY_USER = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables for the waiting policy: all OpenMP, GNU's, and Intel's and LLVM's."""
SAMPLE_S = 0.1
"""Duration of the load measurement: ten ticks of the kernel's accounting."""
FREE_SHARE = 0.75
"""Spin only if at least this share of the usable cores is free."""


@dataclass(frozen=True)
class Waiting:
    """Waiting policy of threads, with its reason."""

    spins: bool
    reason: str
    is_crowded: bool = False
    """Whether other programs use the cores, so that computing takes longer."""

    def __str__(self) -> str:
        return f"{'spin' if self.spins else 'sleep'} while they wait ({self.reason})"


def usable_cores() -> int:
    """Number of cores that this process may use, at least 1; fractions are rounded up."""
    return max(1, math.ceil(core_limit()))


@cache
def waiting() -> Waiting:
    """Waiting policy of threads, decided once per process from the load of the machine."""
    if policy := os.environ.get(POLICY):
        return Waiting(policy.upper() != "PASSIVE", f"{POLICY}={policy}")
    return _decided(core_limit(), len(_allowed()), busy_cores())


def prepare_torch() -> Waiting:
    """Configure the OpenMP of torch: number of threads and waiting policy.

    Settings of the user are kept. Has no effect after torch is loaded.
    """
    found = waiting()
    if "torch" in sys.modules:
        return Waiting(True, "torch was loaded before attar could choose")
    if usable_cores() < len(_allowed()):  # OpenMP respects the affinity, but not the quota
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    given = [f"{name}={os.environ[name]}" for name in SET_BY_USER if name in os.environ]
    if given:
        return Waiting(found.spins, ", ".join(given))
    if not found.spins:
        os.environ[POLICY] = "PASSIVE"
    return found


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Context manager that sets the number of torch threads, a setting of the whole process, and
    restores it. Has no effect if torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None or torch.get_num_threads() == count:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _decided(limit: float, allowed: int, busy: float | None) -> Waiting:
    """Decide from the core limit, the cores in the affinity, and the cores busy with other work."""
    if limit % 1:
        return Waiting(False, f"the control group allows {limit:g} cores")
    if busy is None:
        return Waiting(True, "the load of the cores is unknown")
    is_free = allowed - busy >= FREE_SHARE * limit
    reason = f"other programs use {busy:.1f} of {allowed} cores"
    return Waiting(is_free, reason, is_crowded=not is_free)


def _allowed() -> set[int]:
    """Indices of the cores in the affinity."""
    affinity = getattr(os, "sched_getaffinity", None)
    return affinity(0) if affinity is not None else set(range(os.cpu_count() or 1))


def core_limit() -> float:
    """Number of cores that affinity and control group quotas allow, possibly fractional."""
    quotas = (quota for group in groups_of("cpu") for quota in _quota_of(*group))
    return min([float(len(_allowed())), *quotas])


def busy_cores() -> float | None:
    """Number of allowed cores that other programs are using; None if unknown.

    Includes time that a hypervisor gives to other machines ("steal").
    """
    cores = _allowed()
    before, own, began = _ticks(cores), time.process_time(), time.monotonic()
    time.sleep(SAMPLE_S)
    after = _ticks(cores)
    own = (time.process_time() - own) / (time.monotonic() - began)
    busy, all_ticks = (late - early for early, late in zip(before, after, strict=True))
    if all_ticks <= 0:
        return None
    return max(0.0, len(cores) * busy / all_ticks - own)


def _ticks(cores: set[int]) -> tuple[int, int]:
    """Busy ticks and total ticks of these cores since boot."""
    busy = everything = 0
    for line in kernel_lines(control_groups.SYSTEM / "proc/stat"):
        name, *numbers = line.split()
        # user nice system idle iowait irq softirq steal; user includes guests
        ticks = [int(number) for number in numbers[:8] if number.isdecimal()]
        is_core = name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores
        if is_core and len(ticks) > 4:
            everything += sum(ticks)
            busy += sum(ticks) - ticks[3] - ticks[4]
    return busy, everything


def _quota_of(group: Path, is_version_2: bool) -> Iterator[float]:
    """Number of cores that one group allows; yields nothing if it has no limit.

    Version 2 has "<microseconds> <period>" or "max <period>" in one file, version 1 has two files,
    and −1 for no limit.
    """
    names = ("cpu.max",) if is_version_2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    words = " ".join(line for name in names for line in kernel_lines(group / name)).split()
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
        yield int(words[0]) / int(words[1])
