"""ONNX Runtime: exports the lowered model with its quantizers as ONNX operators.

torch's exporter cannot translate fake-quantize, but it can emit operators by name
(`torch.onnx.ops.symbolic`). So the lowered modules emit QuantizeLinear and DequantizeLinear
themselves. ONNX Runtime uses its int8 kernels under three conditions:

- activations are u8 and weights s8 with a scale per column, stored as (I, O);
- no quantizer directly follows a product: the sums stay float (`MatMulIntegerToFloat`), and the
  bias is added to them;
- products have three-dimensional inputs: with two dimensions and a bias they would become `Gemm`,
  which has no int8 kernel, so the inputs of pooler and classifier get a temporary dimension.

CPUs without int8 dot products (VNNI) add pairs of u8 × s8 products in 16 bits, which can saturate.
For them weights are stored unsigned with zero point 128: the u8 × u8 kernels widen first. This is
slower but exact, and keeps all bits of the weights.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attar.artifacts import disk_errors_explained
from attar.export.config import WeightStorage
from attar.export.four_bit import BLOCKS, OnnxEmbedding, OnnxLinear, fits
from attar.export.lowering import (
    IntegerEmbedding,
    example_inputs,
    float_graph,
    is_quantized,
    lower,
)
from attar.export.moved_shortcuts import shift_in_bias_
from attar.export.storage import pack_onnx_
from attar.extras import require
from attar.models.deployed.runtimes import ONNX_FILE
from attar.models.simulated.qparams import SiteQParams

OPSET = 21
"""The first opset whose QuantizeLinear and DequantizeLinear support all 8-bit types used here."""
MOST_TEXTS, MOST_TOKENS = 4096, 8192
"""Upper bounds of the dynamic dimensions, which the exporter requires."""


class IntegerMatMul(nn.Module):
    """A Linear as DequantizeLinear → MatMul → Add."""

    def __init__(self, linear: nn.Linear, integers: Tensor, scale: Tensor, *, signed: bool) -> None:
        super().__init__()
        columns = integers.T.contiguous()
        zero = torch.zeros_like(scale, dtype=torch.int8)
        if not signed:
            columns = (columns.to(torch.int16) + 128).to(torch.uint8)
            zero = torch.full_like(scale, 128).to(torch.uint8)
        self.register_buffer("integers", columns)
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.get_buffer(name) for name in ("integers", "scale", "zero_point")]
        weight = _operator("DequantizeLinear", parts, torch.float32, parts[0], axis=1)
        if x.ndim == 2:
            product = torch.matmul(x[:, None, :], weight).squeeze(1)
        else:
            product = torch.matmul(x, weight)
        return product if self.bias is None else product + self.bias


class QuantizeDequantize(nn.Module):
    """The quantizer of a site as QuantizeLinear → DequantizeLinear with u8."""

    def __init__(self, site: SiteQParams) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(site.scale, dtype=torch.float32))
        zero_point = site.zero_point - site.quant_min
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.uint8))
        self.is_narrow = site.quant_max - site.quant_min < 255
        self.low, self.high = site.low, site.high

    def forward(self, x: Tensor) -> Tensor:
        if self.is_narrow:
            x = x.clamp(self.low, self.high)
        grid = [self.get_buffer("scale"), self.get_buffer("zero_point")]
        integers = _operator("QuantizeLinear", [x, *grid], torch.uint8, x)
        return _operator("DequantizeLinear", [integers, *grid], torch.float32, x)


def _operator(
    name: str, inputs: list[Tensor], dtype: torch.dtype, like: Tensor, **attrs: int
) -> Tensor:
    """Emit an ONNX operator by name. Before export, it is a placeholder with the right dtype and
    shape."""
    return torch.onnx.ops.symbolic(name, inputs, {**attrs}, dtype=dtype, shape=like.shape)


def write_onnx(
    model_folder: Path,
    folder: Path,
    input_names: tuple[str, ...],
    *,
    signed_weights: bool = True,
    storage: WeightStorage = "packed",
) -> None:
    """Write `model.onnx`, with dynamic batch size and length.

    Args:
        signed_weights: False for CPUs without int8 dot products; see above.
    Raises:
        ResourceError: the disk is full.
    """
    onnx = require("onnx", "export")
    require("onnxscript", "export")
    if is_quantized(model_folder):
        make_weight = partial(
            _four_bit_weight if storage == "int4_kernel" else _integer_weight,
            signed=signed_weights,
        )
        module = lower(model_folder, make_weight, QuantizeDequantize, shift_in_bias_)
    else:
        module = float_graph(model_folder)
    sizes = {
        0: torch.export.Dim("texts", min=1, max=MOST_TEXTS),
        1: torch.export.Dim("tokens", min=2, max=MOST_TOKENS),
    }
    with _quiet_exporter(), torch.no_grad():
        program: Any = torch.onnx.export(
            module.eval(),
            (),
            kwargs=example_inputs(input_names),
            dynamo=True,
            dynamic_shapes=dict.fromkeys(input_names, sizes),
            input_names=list(input_names),
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    proto = program.model_proto
    _tidy_(proto.graph)
    if storage != "int8":
        pack_onnx_(proto.graph)
    with disk_errors_explained(folder, proto.ByteSize()):
        onnx.save(proto, folder / ONNX_FILE)


def _integer_weight(
    module: nn.Module, integers: Tensor, scale: Tensor, *, signed: bool
) -> nn.Module:
    if isinstance(module, nn.Linear):
        return IntegerMatMul(module, integers, scale, signed=signed)
    return IntegerEmbedding(integers, scale)


def _four_bit_weight(
    module: nn.Module, integers: Tensor, scale: Tensor, *, signed: bool
) -> nn.Module:
    if not fits(integers, multiple_of=min(BLOCKS)):
        return _integer_weight(module, integers, scale, signed=signed)
    if isinstance(module, nn.Linear):
        return OnnxLinear(module, integers, scale)
    return OnnxEmbedding(integers, scale)


def _tidy_(graph: Any) -> None:
    """Name every product after its module, and remove the exporter's annotations."""
    # the recorded shapes and types are those of the placeholders
    del graph.value_info[:]
    taken: Counter[str] = Counter()
    for node in graph.node:
        facts = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(facts.get("pkg.torch.onnx.name_scopes", "[]"))
        if node.op_type in ("MatMul", "Gemm", "MatMulNBits") and len(scopes) >= 2:
            fqn = scopes[-2].removeprefix("model.")
            taken[fqn] += 1
            node.name = fqn if taken[fqn] == 1 else f"{fqn} ({taken[fqn]})"
        del node.metadata_props[:]
        node.doc_string = ""


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Context manager that silences warnings and logs of the exporter, but not its errors."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
