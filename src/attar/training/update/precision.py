"""Which number format the forward and backward passes use.

bf16 autocast halves the time of matrix products where the hardware multiplies bf16, and is slower
than float32 where it does not: some CPUs only emulate it, and torch uses the emulation without a
word. So `auto` looks at the instruction set. Weights, gradients of weights and optimizer moments
stay in float32 either way.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Precision:
    """A number format, and why it was chosen."""

    name: Literal["bf16", "fp32"]
    reason: str
    is_emulated: bool = False
    """True if the hardware cannot multiply in this format: correct, but slow."""


def choose_precision(asked: Literal["auto", "bf16", "fp32"], device: torch.device) -> Precision:
    """The format to train in. `auto` is bf16 only where the device multiplies bf16 in hardware."""
    if asked == "fp32":
        return Precision("fp32", "as asked")
    has_hardware, what = _bf16_hardware(device)
    if asked == "bf16":
        return Precision("bf16", "as asked", is_emulated=not has_hardware)
    if has_hardware:
        return Precision("bf16", f"{device.type} has {what}")
    return Precision("fp32", f"{device.type} has no bf16 multiplication in hardware")


def _bf16_hardware(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False), "bf16 tensor cores"
    if device.type != "cpu":
        return False, ""
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN's own answer (`mkldnn._is_mkldnn_bf16_supported`) is true for emulation as well.
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
