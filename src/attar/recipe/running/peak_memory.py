"""The most memory this process held while a step ran.

Linux keeps the peak itself (VmHWM) and lets a process reset it; elsewhere, or where that is
refused, a thread looks a few times a second, which may miss a short spike.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

SAMPLE_EVERY_S = 0.2
MIB = 2**20
RESET_PEAK = "5"
"""What `/proc/self/clear_refs` understands as "forget the peak" (proc_pid_clear_refs(5))."""


class PeakMemory:
    """Filled in when the watched block ends."""

    peak_rss_mib: float = 0.0


@contextmanager
def peak_memory() -> Generator[PeakMemory]:
    """Measure the peak resident memory of the block."""
    peak = PeakMemory()
    if _reset_kernel_peak():
        try:
            yield peak
        finally:
            peak.peak_rss_mib = round(_kernel_peak_mib(), 1)
        return
    stopped = threading.Event()
    sampler = threading.Thread(target=_sample, args=(peak, stopped), daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        stopped.set()
        sampler.join()


def _reset_kernel_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
        return _kernel_peak_mib() > 0
    except OSError:
        return False


def _kernel_peak_mib() -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _sample(peak: PeakMemory, stopped: threading.Event) -> None:
    import psutil

    process = psutil.Process()
    while True:
        peak.peak_rss_mib = max(peak.peak_rss_mib, round(process.memory_info().rss / MIB, 1))
        if stopped.wait(SAMPLE_EVERY_S):
            return
