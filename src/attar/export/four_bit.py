"""4-bit kernels of the runtimes: weights have 4 bits on disk *and* in memory.

    OpenVINO      a u4 constant, unpacked inside FullyConnected; Gather reads u4 rows
    ONNX Runtime  the contrib operators MatMulNBits and GatherBlockQuantized

They are designed for decoding one token at a time, which is limited by memory bandwidth. Both
multiply floats: at 1 × 128 they take more than twice the time of int8 products
(`attar.export.storage`), so they only save memory and are used only if the recipe asks for them.
There is one scale per row; where a kernel needs one per block, the scale of the row is repeated.

Integers of more than 4 bits stay bytes. Shape letters: O rows of a weight, I columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attar.export.storage import bits_needed

ZERO = 8
"""Stored value of 0, the runtimes' convention for symmetric 4-bit weights."""
BLOCKS = (256, 128, 64, 32, 16)
"""Block sizes along the columns that ONNX Runtime's kernels support."""


def fits(integers: Tensor, multiple_of: int = 2) -> bool:
    """Whether the kernels support integers (O, I): all fit in 4 bits, and rows fill whole bytes."""
    return bits_needed(integers.numpy()) <= 4 and integers.shape[1] % multiple_of == 0


def nibbles(integers: Tensor) -> Tensor:
    """Pack 4-bit integers (O, I) into bytes (O, I / 2), the first in the lower half."""
    moved = (integers.to(torch.int16) + ZERO).to(torch.uint8)
    return (moved[:, 0::2] | (moved[:, 1::2] << 4)).contiguous()


class _OpenVinoWeight(nn.Module):
    """A float32 weight (O, I) in the form that OpenVINO's frontend recognizes as a u4 constant."""

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.shape = tuple(integers.shape)
        self.register_buffer("packed", nibbles(integers))
        self.register_buffer("scale", scale[:, None].clone())

    def forward(self) -> Tensor:
        packed = self.get_buffer("packed")
        halves = (torch.bitwise_and(packed, 15), torch.bitwise_right_shift(packed, 4))
        integers = torch.stack(halves, dim=-1).reshape(self.shape).to(torch.float32)
        return (integers - ZERO) * self.get_buffer("scale")


class OpenVinoLinear(nn.Module):
    """A Linear with u4 weights in OpenVINO."""

    def __init__(self, linear: nn.Linear, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.make_weight = _OpenVinoWeight(integers, scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.make_weight(), self.bias)


class OpenVinoEmbedding(nn.Module):
    """A u4 embedding table in OpenVINO, whose Gather dequantizes the rows it reads."""

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.make_weight = _OpenVinoWeight(integers, scale)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.make_weight())


class _OnnxBlocks(nn.Module):
    """Integers and scales in blocks."""

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.rows, self.columns = integers.shape
        self.block = next(size for size in BLOCKS if self.columns % size == 0)
        self.num_blocks = self.columns // self.block
        self.register_buffer("integers", nibbles(integers))
        self.register_buffer("scale", scale[:, None].repeat(1, self.num_blocks))

    def operator(self, name: str, inputs: list[Tensor], like: Tensor, **attrs: int) -> Tensor:
        return torch.onnx.ops.symbolic(
            f"com.microsoft::{name}",
            inputs,
            {"bits": 4, "block_size": self.block, **attrs},
            dtype=torch.float32,
            shape=like.shape,
            version=1,
        )


class OnnxLinear(_OnnxBlocks):
    """A Linear as MatMulNBits."""

    def __init__(self, linear: nn.Linear, integers: Tensor, scale: Tensor) -> None:
        super().__init__(integers, scale)
        packed = self.get_buffer("integers")
        self.integers = packed.reshape(self.rows, self.num_blocks, self.block // 2)
        self.scale = self.get_buffer("scale").flatten()
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        like = x[..., :1].expand(*x.shape[:-1], self.rows)
        sizes = {"K": self.columns, "N": self.rows}
        product = self.operator("MatMulNBits", [x, self.integers, self.scale], like, **sizes)
        return product if self.bias is None else product + self.bias


class OnnxEmbedding(_OnnxBlocks):
    """An embedding table as GatherBlockQuantized."""

    def forward(self, ids: Tensor) -> Tensor:
        like = ids[..., None].expand(*ids.shape, self.columns)
        inputs = [self.get_buffer("integers"), ids, self.get_buffer("scale")]
        return self.operator("GatherBlockQuantized", inputs, like, gather_axis=0, quantize_axis=1)
