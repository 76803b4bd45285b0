"""How much memory is there before a run begins, and whether its steps fit into it.

A step that cannot fit even one text at a time is refused before anything runs; one that fits only
with fewer texts at a time is warned of, because the plan's figure for a text is an upper limit.
Left out: the memory of an accelerator, where training takes it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from attar.errors import ResourceError
from attar.progress import Progress
from attar.recipe.plan import Plan
from attar.step import StepPlan
from attar.usable_memory import usable_memory_mib


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
            "another one); free memory by closing other programs; or run where there is more",
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
