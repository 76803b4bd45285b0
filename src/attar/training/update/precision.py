"""Choose the device to train on, and the number format of the forward and backward passes.

bf16 autocast can halve the time of matrix products, but it also casts every weight and activation.
Which effect is larger depends on the processor and the model, and cannot be read from CPU flags: on
a CPU with AVX512_BF16 but without AMX, a step of MiniLM took 0.77 s in bf16 and 0.56 s in float32.
So on a CPU with bf16 instructions, `auto` times both on the first batch. Without them, bf16 is
emulated and always slower; on a GPU that supports it, it is always faster.

bf16 must be faster by a clear margin, because it has fewer digits, and so that equal runs on one
machine make the same choice. The choice is stored with the checkpoints, so a resumed run keeps it.
Weights, their gradients and optimizer moments are float32 in both cases.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from attar.artifacts import read_json, write_json
from attar.errors import ArtifactError, UsageError, ran_out_of_memory
from attar.step import StepContext

Asked = Literal["auto", "bf16", "fp32"]
Work = Callable[[bool], object]
"""Does the same work in bf16 (True) or float32, without side effects."""

MARGIN = 0.1
"""bf16 is chosen if it takes at most 1 − MARGIN of the time."""
ROUNDS = 3
"""Timed rounds of both formats, after an untimed one."""
ENOUGH_S = 5.0
"""No further round is started after this time."""
PRECISION_FILE = "precision.json"


@dataclass(frozen=True)
class Precision:
    """A number format, and the reason for choosing it."""

    name: Literal["bf16", "fp32"]
    reason: str
    is_emulated: bool = False
    """Whether the hardware does not support this format: correct, but slow."""


def choose_precision(asked: Asked, device: torch.device, work: Work | None = None) -> Precision:
    """Choose the number format.

    Args:
        work: timed by `auto` on a CPU with bf16; None: matrix products with the shape of a small
            model, for a plan.
    """
    if asked == "fp32":
        return Precision("fp32", "as asked")
    has_hardware, what = _bf16_hardware(device)
    if asked == "bf16":
        return Precision("bf16", "as asked", is_emulated=not has_hardware)
    if not has_hardware:
        return Precision("fp32", f"{device.type} has no bf16 hardware")
    if device.type != "cpu":
        return Precision("bf16", f"{device.type} has {what}")
    return _faster_product() if work is None else faster(work)


def faster(work: Work, clock: Callable[[], float] = time.perf_counter) -> Precision:
    """Time the work in both formats, alternately. The state of random generators is restored.

    Args:
        clock: returns seconds; can be replaced in tests.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    first = clock()
    try:
        with torch.random.fork_rng():
            for number in range(1 + ROUNDS):
                if number > 1 and clock() - first > ENOUGH_S:
                    break
                for is_bf16, found in seconds.items():
                    began = clock()
                    work(is_bf16)
                    if number > 0:
                        found.append(clock() - began)
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        return Precision("fp32", "memory ran out before both formats were timed")
    bf16, fp32 = min(seconds[True]), min(seconds[False])
    told = f"bf16 {1000 * bf16:.3g} ms, fp32 {1000 * fp32:.3g} ms"
    if bf16 <= (1 - MARGIN) * fp32:
        return Precision("bf16", f"measured: {told}")
    return Precision("fp32", f"measured: {told}; bf16 must be {MARGIN:.0%} faster")


def device_here() -> torch.device:
    """The device on which this process trains; plans assume it too."""
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="no").device


def open_accelerator(
    asked: Asked, context: StepContext, work: Work | None = None
) -> tuple[Accelerator, Precision]:
    """The accelerator and number format of a step.

    accelerate keeps one precision per process, and an earlier step of the recipe may have used
    another.

    Args:
        work: as in `choose_precision`; called only on a CPU.

    Raises:
        UsageError: a launcher started several processes.
    """
    device = device_here()
    precision = _kept_choice(context) if asked == "auto" else None
    if precision is None:
        precision = choose_precision(asked, device, work)
        if asked == "auto":
            context.scratch.mkdir(parents=True, exist_ok=True)
            write_json(context.scratch / PRECISION_FILE, asdict(precision))
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="bf16" if precision.name == "bf16" else "no")
    if accelerator.num_processes > 1:
        raise UsageError(
            f"{context.name}: started as one of {accelerator.num_processes} processes, but attar "
            "trains in one process; start it without a launcher"
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


def _kept_choice(context: StepContext) -> Precision | None:
    """The choice of an earlier session of this step; None: there is none, or it is damaged."""
    file = context.scratch / PRECISION_FILE
    if not file.is_file():
        return None
    with suppress(ArtifactError, TypeError, KeyError):
        content: Any = read_json(file)
        if content["name"] in ("bf16", "fp32") and isinstance(content["reason"], str):
            return Precision(**content)
    return None


@cache
def _faster_product() -> Precision:
    tokens_TD, weight_FD = torch.ones(1024, 384), torch.ones(1536, 384)

    def product(is_bf16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            torch.nn.functional.linear(tokens_TD, weight_FD)

    return faster(product)


def _bf16_hardware(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False), "bf16 tensor cores"
    if device.type != "cpu":
        return False, ""
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN's own check (`mkldnn._is_mkldnn_bf16_supported`) is also true for emulation
        for probe, name in (
            ("_is_amx_tile_supported", "AMX"),
            ("_is_avx512_bf16_supported", "AVX512_BF16"),
        ):
            if getattr(torch.cpu, probe, lambda: False)():
                return True, name
        return False, ""
    if not torch.backends.mkldnn.is_available():  # its operators are then not registered
        return False, ""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported(), "bf16 instructions"
