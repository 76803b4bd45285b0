"""bf16 is chosen only where the hardware multiplies it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from attar.training.update.precision import choose_precision

CPU = torch.device("cpu")


def test_what_is_asked_for_is_taken() -> None:
    assert choose_precision("fp32", CPU).name == "fp32"
    assert choose_precision("bf16", CPU).name == "bf16"


def test_auto_follows_the_instruction_set() -> None:
    flags_file = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not flags_file.is_file():
        pytest.skip("reads the flags of an x86 processor under Linux")
    flags = flags_file.read_text()
    has_bf16 = "avx512_bf16" in flags or "amx_tile" in flags
    assert (choose_precision("auto", CPU).name == "bf16") is has_bf16


def test_auto_is_fp32_where_bf16_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False)
    assert choose_precision("auto", CPU).name == "fp32"
    assert choose_precision("bf16", CPU).is_emulated


def test_auto_is_fp32_on_another_processor_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> bool:
        raise AttributeError("this torch was built without oneDNN")

    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", missing)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_precision("auto", CPU).name == "fp32"
