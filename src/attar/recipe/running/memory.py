"""Memory of steps: check beforehand, measurement of the peak, and out-of-memory errors.

A step that does not fit in memory even with one text at a time is an error before anything runs. If
it fits only with fewer texts at a time, there is a warning, because the planned size per text is an
upper bound.

Linux records the peak (VmHWM), and a process can reset it. Elsewhere, or if that is not permitted,
a thread samples memory a few times per second and may miss short spikes.

Left out: accelerator memory, and processes killed by the kernel.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from attar.artifacts import MIB
from attar.errors import ResourceError, ran_out_of_memory
from attar.progress import Progress
from attar.recipe.plan import Plan
from attar.step import StepPlan
from attar.usable_memory import kernel_peak_mib, usable_memory_mib

SAMPLE_EVERY_S = 0.2
RESET_PEAK = "5"
"""Value for `/proc/self/clear_refs` that resets the peak (proc_pid_clear_refs(5))."""


def require_memory(
    plan: Plan, progress: Progress, names: Collection[str], usable_mib: float | None = None
) -> None:
    """Check that steps fit in memory; warn about those that fit only with fewer texts at a time.

    Args:
        names: the steps that will run.
        usable_mib: available memory; None: measured now.
    Raises:
        ResourceError: a step needs more memory; the message has the numbers and advice.
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
    """Peak memory, set at the end of the block."""

    peak_rss_mib: float = 0.0


@contextmanager
def peak_memory() -> Generator[PeakMemory]:
    """Measure the peak resident memory of the block."""
    peak = PeakMemory()
    if _reset_kernel_peak():
        try:
            yield peak
        finally:
            peak.peak_rss_mib = round(kernel_peak_mib() or 0.0, 1)
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
        return kernel_peak_mib() is not None
    except OSError:
        return False


def _sample(peak: PeakMemory, stopped: threading.Event) -> None:
    import psutil

    process = psutil.Process()
    while True:
        peak.peak_rss_mib = max(peak.peak_rss_mib, round(process.memory_info().rss / MIB, 1))
        if stopped.wait(SAMPLE_EVERY_S):
            return


@contextmanager
def memory_explained(step: str) -> Generator[None]:
    """Convert out-of-memory errors of `step` to a `ResourceError`; other errors pass."""
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
