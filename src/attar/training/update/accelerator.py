"""The device to train on and its number format, opened through accelerate, one process."""

from __future__ import annotations

from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from attar.errors import UsageError
from attar.step import StepContext
from attar.training.update.precision import Precision, choose_precision


def device_here() -> torch.device:
    """Where this process trains, and what a plan expects of it."""
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="no").device


def open_accelerator(
    asked: Literal["auto", "bf16", "fp32"], context: StepContext
) -> tuple[Accelerator, Precision]:
    """The device and the format of a step.

    accelerate keeps one precision a process; an earlier step of the recipe may have used another.

    Raises:
        UsageError: a launcher started several processes.
    """
    device = device_here()
    precision = choose_precision(asked, device)
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="bf16" if precision.name == "bf16" else "no")
    if accelerator.num_processes > 1:
        raise UsageError(
            f"{context.name}: started as one of {accelerator.num_processes} processes; "
            "training runs in one process for now: start attar without a launcher"
        )
    context.progress.say(
        f"  {context.name}: {precision.name} on {device.type} ({precision.reason})"
    )
    if precision.is_emulated:
        context.progress.warn(
            f"{context.name}: this {device.type} only emulates bf16, which is slow; "
            'precision = "auto" avoids it'
        )
    return accelerator, precision
