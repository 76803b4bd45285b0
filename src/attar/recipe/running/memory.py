"""Memory: whether a step can have it, how much it took, and what to say when it ran out.

A step that cannot fit even one text at a time is refused before anything runs; one that fits only
with fewer texts at a time is warned of, because the plan's figure for a text is an upper limit.

Linux keeps the peak itself (VmHWM) and lets a process reset it; elsewhere, or where that is
refused, a thread looks a few times a second, which may miss a short spike.

Left out: the memory of an accelerator, and the kernel's own killing of a process.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from attar.errors import ResourceError, ran_out_of_memory
from attar.progress import Progress
from attar.recipe.plan import Plan
from attar.step import StepPlan
from attar.usable_memory import usable_memory_mib

SAMPLE_EVERY_S = 0.2
MIB = 2**20
RESET_PEAK = "5"
"""What `/proc/self/clear_refs` understands as "forget the peak" (proc_pid_clear_refs(5))."""


def require_memory(
    plan: Plan, progress: Progress, names: Collection[str], usable_mib: float | None = None
) -> None:
    """Refuse steps that cannot fit into memory; warn of those that fit only with fewer texts at
    a time.

    Args:
        names: the steps that will run. usable_mib: None: what there is now.
    Raises:
        ResourceError: a step needs more than there is; with the numbers and what can be done.
    """
    usable = usable_memory_mib() if usable_mib is None else usable_mib
    torch = sys.modules.get("torch")
    elsewhere = {"train"} if torch is not None and torch.cuda.is_available() else set[str]()
    steps = [s for s in plan.steps if s.name in names and s.run not in elsewhere]
    if short := [step for step in steps if step.least_mib > usable]:
        raise ResourceError(
            f"memory is short before anything runs: {usable:,.0f} MiB are available; lower "
            "max_length or batch_size, or take a smaller model (keep_blocks, hidden_size, or "
            "another one); close other programs; or use a machine with more memory",
            [f"  - {_needed(step)}" for step in short],
        )
    for step in steps:
        if step.memory_mib > usable:
            progress.warn(
                f"step {step.name!r} may need {step.memory_mib:,.0f} MiB if all its texts are "
                f"long, {usable:,.0f} MiB are available; to be safe, {_remedy(step, usable)}"
            )


def _remedy(step: StepPlan, usable: float) -> str:
    if not step.lowered_by:
        return "lower its batch_size or max_length, or free memory"
    share = (usable - step.least_mib) / (step.memory_mib - step.least_mib)
    size = max(1, int(share * step.texts_at_once))
    return (
        f"add --set steps.{step.name}.{step.lowered_by}={size} (batches "
        "are then computed in parts), lower max_length, or free memory"
    )


def _needed(step: StepPlan) -> str:
    alone = " even with one text at a time" if step.least_mib < step.memory_mib else ""
    return f"step {step.name!r} ({step.run}) needs about {step.least_mib:,.0f} MiB{alone}"


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


@contextmanager
def memory_explained(step: str) -> Generator[None]:
    """Turn memory that ran out while `step` ran into a `ResourceError`; other errors pass."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ResourceError(
            f"memory ran out in step {step!r} ({reason}); finished steps are intact; lower "
            "batch_size, micro_batch_size or max_length, then run again (attar plan shows the "
            "memory of each step)"
        ) from error
