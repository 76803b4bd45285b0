"""The peak of a block is that of the block, not of what ran before it."""

from __future__ import annotations

import mmap
import time

import pytest

from attar.recipe.running import memory as module
from attar.recipe.running.memory import peak_memory

MIB = 2**20


@pytest.mark.parametrize("by_kernel", [True, False])
def test_memory_freed_before_the_block_does_not_count(
    by_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_kernel:
        monkeypatch.setattr(module, "_reset_kernel_peak", lambda: False)
        monkeypatch.setattr(module, "SAMPLE_EVERY_S", 0.005)
    elif not module._reset_kernel_peak():
        pytest.skip("this kernel does not let a process reset its peak")
    with peak_memory() as quiet:
        pass
    with peak_memory() as busy:
        _hold(200 * MIB)
    with peak_memory() as quiet_again:
        pass
    assert 150 < busy.peak_rss_mib - quiet.peak_rss_mib < 300
    assert abs(quiet_again.peak_rss_mib - quiet.peak_rss_mib) < 100


def _hold(size: int) -> None:
    """Pages from the kernel: an allocator may keep what was freed, and so would this process."""
    with mmap.mmap(-1, size) as held:
        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1
        time.sleep(0.05)
