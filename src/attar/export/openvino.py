"""OpenVINO: exports a trace of the lowered model, with int8 weights in the file.

OpenVINO's PyTorch frontend reads torch's fake-quantize as its `FakeQuantize`, and
int8 → float → × scale as a quantized weight. When the model is compiled, low-precision passes fuse
both into the kernels: u8 activations × i8 weights. The converted graph is changed only to store
constants at their true size (`attar.export.storage`).

OpenVINO reports each conversion over the network. `require` imports it without this telemetry; if
the caller has already imported it, telemetry is disabled during the conversion.

TorchScript's tracer warns that Python values become constants. Whether that matters is tested by
the parity check, which compares texts of many lengths.
"""

from __future__ import annotations

import errno
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attar.artifacts import disk_errors_explained
from attar.errors import ModelError
from attar.export.config import WeightStorage
from attar.export.four_bit import OpenVinoEmbedding, OpenVinoLinear, fits
from attar.export.lowering import (
    IntegerEmbedding,
    example_inputs,
    float_graph,
    is_quantized,
    lower,
)
from attar.export.moved_shortcuts import factor_behind_sum_
from attar.export.storage import pack_openvino_
from attar.extras import require
from attar.models.deployed.runtimes import OPENVINO_FILE
from attar.models.deployed.silent_conversion import nothing_reported
from attar.models.load import quiet_transformers
from attar.models.simulated.qparams import SiteQParams
from attar.models.structure.site_kinds import SCORE_KINDS

XML_BYTES = 550
"""Size of an operation with its ports; measured: 476 to 483 in float, int8 and 4-bit graphs."""
BYTE_MIN, BYTE_MAX = 0, 255
"""Activations are u8 in the kernels; the passes recognize only 256 levels."""


class IntegerLinear(nn.Module):
    """A Linear with int8 weights; OpenVINO applies the scales after the integer product."""

    def __init__(self, linear: nn.Linear, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale[:, None].clone())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        weight = self.get_buffer("integers").to(torch.float32) * self.get_buffer("scale")
        return nn.functional.linear(x, weight, self.bias)


class ByteQuantizer(nn.Module):
    """A grid of at most 8 bits, expressed with the 256 levels of a byte. Grids of symmetric queries
    and keys are centred at zero, which OpenVINO recognizes as i8 without a zero point."""

    def __init__(self, site: SiteQParams) -> None:
        super().__init__()
        self.scale = site.scale
        self.zero_point = site.zero_point - site.quant_min
        if site.kind in SCORE_KINDS and site.is_symmetric:
            self.zero_point = (BYTE_MAX + 1) // 2
        self.is_narrow = site.quant_max - site.quant_min < BYTE_MAX
        self.low, self.high = site.low, site.high

    def forward(self, x: Tensor) -> Tensor:
        if self.is_narrow:
            x = x.clamp(self.low, self.high)
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, BYTE_MIN, BYTE_MAX
        )


def write_openvino(
    model_folder: Path,
    folder: Path,
    input_names: tuple[str, ...],
    *,
    storage: WeightStorage = "packed",
) -> None:
    """Write `openvino_model.xml` and `.bin`, with dynamic batch size and length.

    Raises:
        ModelError: OpenVINO cannot read a trace of the model.
        ResourceError: the disk is full.
    """
    openvino = require("openvino", "export")
    if is_quantized(model_folder):
        make_weight = _four_bit_weight if storage == "int4_kernel" else _integer_weight
        module = lower(model_folder, make_weight, ByteQuantizer, factor_behind_sum_, "openvino")
    else:
        module = float_graph(model_folder)
    if not module.adds_mask:
        raise ModelError(
            f"OpenVINO does not support the attention of a {type(module.model).__name__}; export "
            'it with format = "onnxruntime"'
        )
    # Tracing reads every property, including deprecated ones of transformers.
    with (
        warnings.catch_warnings(),
        quiet_transformers(),
        torch.inference_mode(),
        nothing_reported(),
    ):
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        warnings.simplefilter("ignore", FutureWarning)  # from these properties
        warnings.simplefilter("ignore", DeprecationWarning)  # from TorchScript
        graph = openvino.convert_model(module.eval(), example_input=example_inputs(input_names))
    for port in graph.inputs:  # tracing adds numbers to the names
        port.get_tensor().set_names(port.get_names() & set(input_names))
    graph.outputs[0].get_tensor().set_names({"logits"})
    if storage != "int8":
        pack_openvino_(graph)
    needed = _bytes_of(graph)
    with disk_errors_explained(folder, needed):
        try:
            openvino.save_model(graph, folder / OPENVINO_FILE, compress_to_fp16=False)
        except RuntimeError as error:
            # C++ streams do not give the cause: "basic_ios::clear: iostream error"
            if "iostream error" not in str(error) or shutil.disk_usage(folder).free >= needed:
                raise
            raise OSError(errno.ENOSPC, str(error)) from error


def _bytes_of(graph: Any) -> int:
    """Approximate size of the files of a graph: its weights, and XML for each operation."""
    operations = graph.get_ops()
    constants = [op for op in operations if op.get_type_name() == "Constant"]
    return sum(op.get_byte_size() for op in constants) + XML_BYTES * len(operations)


def _integer_weight(module: nn.Module, integers: Tensor, scale: Tensor) -> nn.Module:
    if isinstance(module, nn.Linear):
        return IntegerLinear(module, integers, scale)
    return IntegerEmbedding(integers, scale)


def _four_bit_weight(module: nn.Module, integers: Tensor, scale: Tensor) -> nn.Module:
    if not fits(integers):
        return _integer_weight(module, integers, scale)
    if isinstance(module, nn.Linear):
        return OpenVinoLinear(module, integers, scale)
    return OpenVinoEmbedding(integers, scale)
