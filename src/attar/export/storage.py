"""Lossless storage of integer weights in an exported file, at their true size.

The fastest integer products of the runtimes use bytes; their 4-bit kernels multiply in float (on
MiniLM at 1 × 128, one thread, 2.6 to 2.7 times the time of bytes). So weights have 4 bits in the
file and are bytes in the kernel: the graph unpacks the integers, and since this depends only on
constants, the runtime does it once, when it loads the model. OpenVINO has types of 2, 3, 4 and 6
bits; in ONNX, integers are split into *planes* of 4, 2 and 1 bits:

    integers + 2^(n−1) = Σ_p plane_p · 2^shift_p       n = 6: a plane of 4 bits and one of 2

`n` is the number of bits that the values need, so mixed precision needs no special case.
Left out: entropy coding, which a graph cannot decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attar.extras import require

PLANE_WIDTHS = (4, 2, 1)
"""Widths that divide a byte, so that no value spans two bytes; their sums are 1 … 7."""
OPENVINO_WIDTHS = (2, 3, 4, 6)
"""Bit widths of OpenVINO's sub-byte integers. It would not precompute sums of planes."""
SMALLEST = 4096
"""Minimum number of values for packing; for fewer, the unpacking nodes are larger than the saving.
"""


@dataclass(frozen=True)
class Plane:
    """A group of bits of every value."""

    width: int
    shift: int
    """Position of the lowest of these bits in the value."""
    values: np.ndarray
    """uint8 in 0 … 2^width − 1, in the shape of the tensor."""


def bits_needed(integers: np.ndarray) -> int:
    """Minimum number of bits (at least 1) of two's complement integers for all values.

    Example:
        >>> bits_needed(np.array([-7, 7])), bits_needed(np.array([-8])), bits_needed(np.array([8]))
        (4, 4, 5)
    """
    low, high = int(integers.min()), int(integers.max())
    return max((-low - 1).bit_length() if low < 0 else 0, max(high, 0).bit_length()) + 1


def planes_of(integers: np.ndarray, bits: int) -> list[Plane]:
    """The planes of integers + 2^(bits−1), lowest bits first.

    Args:
        bits: 1 to 7, and at least `bits_needed`.
    """
    moved = (integers.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    found: list[Plane] = []
    shift = 0
    for width in PLANE_WIDTHS:
        if bits & width:
            found.append(Plane(width, shift, (moved >> shift) & ((1 << width) - 1)))
            shift += width
    return found


def in_bytes(plane: Plane) -> np.ndarray:
    """Pack a plane into bytes, lowest bits first: uint8 (⌈values · width / 8⌉,)."""
    each_byte = 8 // plane.width
    flat = plane.values.reshape(-1)
    flat = np.pad(flat, (0, -flat.size % each_byte)).reshape(-1, each_byte)
    return np.bitwise_or.reduce(flat << _shifts(plane.width), axis=1).astype(np.uint8)


def pack_openvino_(model: Any) -> None:
    """Store every int8 constant of an `openvino.Model` in the narrowest type of OpenVINO, which is
    converted at compilation.
    """
    from openvino import Type, opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != Type.i8:
            continue
        integers = node.data
        needed = bits_needed(integers)
        bits = next((width for width in OPENVINO_WIDTHS if width >= needed), 8)
        if integers.size < SMALLEST or bits == 8:
            continue
        offset = 1 << (bits - 1)
        moved = (integers.astype(np.int16) + offset).astype(np.uint8)
        stored = opset13.constant(moved, dtype=getattr(Type, f"u{bits}"))
        unpacked = opset13.subtract(opset13.convert(stored, np.int8), np.int8(offset))
        for reader in list(node.output(0).get_target_inputs()):
            reader.replace_source_output(unpacked.output(0))


def pack_onnx_(graph: Any) -> None:
    """Store every int8 weight of an ONNX graph in planes; the unpacked tensor keeps its name."""
    onnx = require("onnx", "export")
    small, nodes, stored = {}, [], []
    for tensor in graph.initializer:
        is_byte = tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
        if not is_byte or len(tensor.dims) != 2:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        is_signed = values.dtype == np.int8
        integers = values if is_signed else values.astype(np.int16) - UNSIGNED_MIDDLE
        bits = bits_needed(integers)
        if values.size < SMALLEST or bits > 7:
            continue
        unpacker = _Unpacker(onnx, tensor.name, small)
        unpacker.unpack(planes_of(integers, bits), values.shape, bits, is_signed)
        nodes += unpacker.nodes
        stored += unpacker.stored
        tensor.name = ""
    kept = [tensor for tensor in graph.initializer if tensor.name]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *stored, *small.values()])
    behind = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *behind])


UNSIGNED_MIDDLE = 128
"""Zero point of unsigned weights."""


class _Unpacker:
    """The nodes that unpack the planes of one tensor."""

    def __init__(self, onnx: Any, name: str, small: dict[str, Any]) -> None:
        self._onnx, self._name, self._small = onnx, name, small
        self.nodes: list[Any] = []
        self.stored: list[Any] = []

    def unpack(
        self, planes: Sequence[Plane], shape: tuple[int, ...], bits: int, is_signed: bool
    ) -> None:
        byte = np.uint8
        total = ""
        for plane in planes:
            packed = f"{self._name}.bits{plane.shift}"
            self.stored.append(self._onnx.numpy_helper.from_array(in_bytes(plane)[:, None], packed))
            part = self._node("BitShift", packed, _shifts(plane.width), direction="RIGHT")
            part = self._node("BitwiseAnd", part, np.array((1 << plane.width) - 1, byte))
            if plane.shift:
                part = self._node("BitShift", part, np.array(plane.shift, byte), direction="LEFT")
            part = self._node("Reshape", part, np.array([-1]))
            count = int(np.prod(shape))
            part = self._node("Slice", part, np.array([0]), np.array([count]))
            total = part if not total else self._node("BitwiseOr", total, part)
        total = self._node("Reshape", total, np.array(shape))
        offset = 1 << (bits - 1)
        if is_signed:
            total = self._node("Cast", total, to=self._onnx.TensorProto.INT8)
            self._node("Sub", total, np.array(offset, np.int8), last=True)
        else:
            self._node("Add", total, np.array(UNSIGNED_MIDDLE - offset, byte), last=True)

    def _node(
        self, kind: str, *inputs: str | np.ndarray, last: bool = False, **attributes: Any
    ) -> str:
        made = self._name if last else f"{self._name}.{len(self.nodes)}"
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        self.nodes.append(self._onnx.helper.make_node(kind, names, [made], made, **attributes))
        return made

    def _constant(self, array: np.ndarray) -> str:
        name = f"unpack.{array.dtype}.{'_'.join(map(str, array.reshape(-1)))}.{array.ndim}"
        if name not in self._small:
            self._small[name] = self._onnx.numpy_helper.from_array(array, name)
        return name


def _shifts(width: int) -> np.ndarray:
    return np.arange(0, 8, width, dtype=np.uint8)
