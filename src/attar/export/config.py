"""Settings of `run = "export"`. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import Field

from attar.config import Config

WeightStorage = Literal["packed", "int8", "int4_kernel"]


class Parity(Config):
    """Limits of the difference between the deployed and the simulated model. The step fails if one
    is exceeded."""

    examples: int = Field(default=512, gt=0)
    """Number of validation texts to compare, or all if the data has fewer. Use enough texts to
    resolve max_label_flips: 2 % of 128 texts are two or three."""
    max_relative_error: float = Field(default=1.5, gt=0)
    """Root mean square of (deployed − simulated) logits, relative to that of (simulated − float),
    the quantization error. Two models that round independently differ by √2 times this error; a
    larger difference means that they do not compute the same."""
    max_label_flips: float = Field(default=0.02, ge=0, le=1)
    """Share of texts whose predicted label may differ from the simulated model's."""


class ExportMetrics(TypedDict):
    """Metrics that the step writes to its result; gates can use only these."""

    format: str
    parity: dict[str, Any]
    fusion: dict[str, Any]
    size_mib: float
    num_params: int


class ExportStep(Config):
    """Export a quantized or float model as a self-contained folder for a CPU runtime."""

    run: Literal["export"] = "export"
    model: str
    """Step that trains, folds or quantizes the model."""
    format: Literal["openvino", "onnxruntime", "safetensors"] = "openvino"
    """Runtime of the exported model. safetensors: packed integers, run by torch in simulation."""
    weight_storage: WeightStorage = "packed"
    """Storage of weights with fewer than 8 bits. packed: n bits each in the file, unpacked to bytes
    in memory; small files at the speed of int8. int8: one byte each. int4_kernel: 4 bits also in
    memory, multiplied in float by the runtime's kernel at less than half the speed. Has no effect
    on 8-bit weights, float models and safetensors (always packed)."""
    data: str | None = None
    """Data for the parity check; None: the calibration data of the quantized model."""
    parity: Parity = Parity()


def packs_floats(model: object) -> str:
    """Why a model that is not quantized cannot be exported as safetensors."""
    return (
        f'format = "safetensors" packs integers, and {model} holds floats; quantize the model '
        'first, or export it with format = "openvino" or "onnxruntime"'
    )
