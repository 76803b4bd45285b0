"""Packed integers as what is deployed, and what becomes of them in a runtime's file.

`format = "safetensors"` publishes the quantizer's own files: every weight at its 2 to 8 bits, the
grids beside them. Nothing is lowered or traced; torch runs them as they were simulated.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from attar.artifacts import disk_errors_explained
from attar.errors import UsageError
from attar.export.config import ExportStep
from attar.export.lowering import is_quantized
from attar.export.storage import OPENVINO_WIDTHS
from attar.models.deployed.runtimes import MODEL_FILES
from attar.models.simulated.qparams import ModelQParams


def write_packed(model_folder: Path, folder: Path) -> None:
    """Copy `weights.safetensors` and `qparams.json`.

    Raises:
        UsageError: the model holds floats.
        ResourceError: the disk is full.
    """
    if not is_quantized(model_folder):
        raise UsageError(
            f'format = "safetensors" packs integers, and {model_folder} holds floats; quantize the '
            'model first, or export it with format = "openvino" or "onnxruntime"'
        )
    with disk_errors_explained(folder):
        for name in MODEL_FILES["safetensors"]:
            shutil.copyfile(model_folder / name, folder / name)


def storage_notes(config: ExportStep, model_folder: Path) -> list[str]:
    """What a file will hold otherwise than its bits promise; empty when it is as they say."""
    if config.format == "safetensors" or not is_quantized(model_folder):
        return []
    widths = sorted({weight.bits for weight in ModelQParams.read(model_folder).weights} - {8})
    if not widths:
        return []
    said = ", ".join(map(str, widths))
    if config.weight_storage == "int8":
        return [
            f'weights of {said} bits are stored as bytes (weight_storage = "int8"), so the file '
            'has the size of 8 bits; weight_storage = "packed" keeps their own'
        ]
    notes: list[str] = []
    wider = {
        bits: next((width for width in OPENVINO_WIDTHS if width >= bits), 8) for bits in widths
    }
    odd = [f"{bits} bits in {width}" for bits, width in wider.items() if bits != width]
    if config.format == "openvino" and odd:
        notes.append(
            f"OpenVINO has integers of {', '.join(map(str, OPENVINO_WIDTHS))} and 8 bits: it "
            f'stores {", ".join(odd)}; format = "onnxruntime" or "safetensors" keeps their own'
        )
    more = [bits for bits in widths if bits > 4]
    if config.weight_storage == "int4_kernel" and more:
        notes.append(
            f"a 4-bit kernel takes at most 4 bits: weights of {', '.join(map(str, more))} bits "
            "are multiplied as bytes"
        )
    return notes
