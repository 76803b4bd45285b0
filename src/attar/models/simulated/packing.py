"""Store integers of 2 to 8 bits at their true size.

A quantized weight (O, I) of n bits takes ⌈I·n/8⌉ bytes per row: its integers, shifted to 0 … 2^n−1,
are written bit after bit, lowest first, and each row starts at a byte. 8-bit weights are plain
int8. The file also has the float32 scales and, under their own names, the tensors that stay float32
(biases, norms). Tensors that share memory are stored once.

    <name>.packed   uint8 (O, ⌈I·n/8⌉), or int8 (O, I) at 8 bits
    <name>.scale    float32 (O,)

The format is safetensors: no code, no pickle.

Shape letters: `O` rows (output channels, or tokens of an embedding table), `I` values per row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from attar.artifacts import MIB, disk_errors_explained
from attar.errors import ArtifactError
from attar.models.simulated.qparams import QPARAMS_FILE, WEIGHTS_FILE, ModelQParams, WeightQParams
from attar.models.sources.safe_files import check_header
from attar.numerics.affine import QParams, dequantize

ROWS_AT_ONCE = 4096
"""Number of rows packed at a time: in the process a bit takes a byte, eight times the final size.
"""


def pack(integers: Tensor, bits: int, quant_min: int) -> Tensor:
    """Pack rows of integers (O, I), each in quant_min … quant_min + 2^bits − 1, into bytes.

    Returns:
        uint8 (O, ⌈I·bits/8⌉); at 8 bits int8 (O, I), the integers themselves.
    """
    if bits == 8:
        return integers.to(torch.int8).contiguous()
    unsigned = (integers - quant_min).to(torch.uint8).numpy()
    pieces = []
    for rows in _row_slices(unsigned.shape[0]):
        each_bit = (unsigned[rows, :, None] >> np.arange(bits, dtype=np.uint8)) & 1
        flat = each_bit.reshape(each_bit.shape[0], -1)
        pieces.append(np.packbits(flat, axis=1, bitorder="little"))
    return torch.from_numpy(np.concatenate(pieces))


def unpack(packed: Tensor, bits: int, quant_min: int, num_columns: int) -> Tensor:
    """The integers given to `pack`: int32 (O, I)."""
    if bits == 8:
        return packed.to(torch.int32)
    weights = (1 << np.arange(bits)).astype(np.uint8)
    pieces = []
    for rows in _row_slices(packed.shape[0]):
        flat = np.unpackbits(
            packed[rows].numpy(), axis=1, count=num_columns * bits, bitorder="little"
        )
        pieces.append(flat.reshape(-1, num_columns, bits) @ weights)
    return torch.from_numpy(np.concatenate(pieces)).to(torch.int32) + quant_min


def write_tensors(
    folder: Path,
    qparams: ModelQParams,
    integers: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    floats: Mapping[str, Tensor],
) -> None:
    """Write `weights.safetensors`: packed integers and scales of `qparams.weights`, and the tensors
    that stay float.

    Raises:
        ResourceError: the disk is full.
    """
    stored = {
        name: tensor.detach().to(torch.float32).contiguous() for name, tensor in floats.items()
    }
    for weight in qparams.weights:
        stored[f"{weight.fqn}.packed"] = pack(integers[weight.fqn], weight.bits, weight.quant_min)
        stored[f"{weight.fqn}.scale"] = scales[weight.fqn].to(torch.float32).contiguous()
    content = save(stored, metadata={"format": "pt"})
    with disk_errors_explained(folder, len(content)):
        (folder / WEIGHTS_FILE).write_bytes(content)


def grid_of(weight: WeightQParams, scales: Tensor) -> QParams:
    """The grid of each row of a weight, from its scales (O,)."""
    zero_points = torch.zeros_like(scales, dtype=torch.int32)
    return QParams(scales, zero_points, weight.quant_min, weight.quant_max)


def on_grid(weight: WeightQParams, integers: Tensor, scales: Tensor) -> Tensor:
    """The dequantized values (O, I) of a weight."""
    return dequantize(integers, grid_of(weight, scales), weight.axis)


def read_tensors(folder: Path, qparams: ModelQParams) -> dict[str, Tensor]:
    """Every tensor of the model as float32: dequantized integers and float tensors, including tied
    names.

    Raises:
        ArtifactError: the file is missing or damaged, or its tensors do not match `qparams`.
    """
    file = folder / WEIGHTS_FILE
    stored = _read_all(file)
    tensors: dict[str, Tensor] = {}
    for weight in qparams.weights:
        tensors[weight.fqn] = on_grid(weight, *_integers_of(weight, stored, file))
    tensors.update(stored)
    for name, canonical in qparams.tied.items():
        if canonical not in tensors:
            raise _damaged(file, f"{canonical}, which {name} is tied to, is missing")
        tensors[name] = tensors[canonical]
    return tensors


def read_integers(folder: Path, qparams: ModelQParams) -> dict[str, tuple[Tensor, Tensor]]:
    """Parameter name → (int32 integers (O, I), float32 scales (O,)), for a runtime that stores
    integers itself.

    Raises:
        ArtifactError: as `read_tensors`.
    """
    file = folder / WEIGHTS_FILE
    stored = _read_all(file)
    return {weight.fqn: _integers_of(weight, stored, file) for weight in qparams.weights}


def size_mib(folder: Path) -> float:
    """Size of a quantized model on disk in MiB: weights and grids, without tokenizer and
    configs."""
    return sum((folder / name).stat().st_size for name in (WEIGHTS_FILE, QPARAMS_FILE)) / MIB


def _integers_of(
    weight: WeightQParams, stored: dict[str, Tensor], file: Path
) -> tuple[Tensor, Tensor]:
    """Take one weight out of `stored`, after checking it against qparams.json."""
    num_rows, num_columns = weight.shape
    packed = stored.pop(f"{weight.fqn}.packed", None)
    scale = stored.pop(f"{weight.fqn}.scale", None)
    if packed is None or scale is None:
        raise _damaged(file, f"{weight.fqn} is missing")
    width = num_columns if weight.bits == 8 else -(-num_columns * weight.bits // 8)
    kind = torch.int8 if weight.bits == 8 else torch.uint8
    if packed.dtype != kind or tuple(packed.shape) != (num_rows, width):
        raise _damaged(
            file,
            f"{weight.fqn} is {packed.dtype} {tuple(packed.shape)}, {weight.bits} bits need "
            f"{kind} {(num_rows, width)}",
        )
    if scale.dtype != torch.float32 or tuple(scale.shape) != (num_rows,):
        raise _damaged(file, f"scales of {weight.fqn} are {scale.dtype} {tuple(scale.shape)}")
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise _damaged(file, f"a scale of {weight.fqn} is not a positive number")
    integers = unpack(packed, weight.bits, weight.quant_min, num_columns)
    if int(integers.min()) < weight.quant_min or int(integers.max()) > weight.quant_max:
        raise _damaged(
            file, f"{weight.fqn} exceeds its range {weight.quant_min} … {weight.quant_max}"
        )
    return integers, scale


def _read_all(file: Path) -> dict[str, Tensor]:
    check_header(file)
    try:
        with safe_open(file, framework="pt") as reader:
            return {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(file, str(error)) from error


def _damaged(file: Path, fault: str) -> ArtifactError:
    return ArtifactError(f"{file} is damaged: {fault}; quantize the model again")


def _row_slices(num_rows: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, num_rows, ROWS_AT_ONCE))
