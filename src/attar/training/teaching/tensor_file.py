"""A large matrix on disk, written row by row and read by memory map.

The file is an ordinary safetensors file with one tensor, so other tools can open it: its shape is
known in advance, the header is written first, and rows are appended. Rows appended after the last
`sync` may be lost in a kill; a resumed writer truncates the file there.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from attar.artifacts import disk_errors_explained
from attar.errors import ArtifactError

TENSOR = "values"
Width = Literal["u8", "bf16", "fp32"]
DTYPES: dict[str, tuple[str, torch.dtype, int]] = {
    "u8": ("U8", torch.uint8, 1),
    "bf16": ("BF16", torch.bfloat16, 2),
    "fp32": ("F32", torch.float32, 4),
}
"""Width → safetensors' type, torch's type, bytes per value."""
ALIGNED = 64
"""The values begin at a multiple of this many bytes, so that their memory map is aligned."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of a matrix to be written."""

    name: str
    """File name without its extension."""
    rows: int
    columns: int
    dtype: Width

    @property
    def row_bytes(self) -> int:
        return self.columns * DTYPES[self.dtype][2]

    @property
    def num_bytes(self) -> int:
        return len(self.header) + self.rows * self.row_bytes

    @property
    def header(self) -> bytes:
        """The length of the JSON as 8 bytes, the JSON, and spaces up to the alignment."""
        values = self.rows * self.row_bytes
        word = DTYPES[self.dtype][0]
        about = {"dtype": word, "shape": [self.rows, self.columns], "data_offsets": [0, values]}
        text = json.dumps({TENSOR: about}).encode()
        text += b" " * (-(8 + len(text)) % ALIGNED)
        return len(text).to_bytes(8, "little") + text

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}.safetensors"


class TensorWriter:
    """Appends rows to the file of a matrix.

    Args:
        rows_done: number of rows already written; 0: start a new file.
    """

    def __init__(self, spec: TensorSpec, folder: Path, rows_done: int = 0) -> None:
        self._spec, self._folder = spec, folder
        self.rows = rows_done
        with disk_errors_explained(folder, spec.num_bytes):
            file = spec.file(folder)
            if rows_done == 0:
                file.write_bytes(spec.header)
            os.truncate(file, len(spec.header) + rows_done * spec.row_bytes)
            self._stream = file.open("ab")

    def append(self, rows: Tensor) -> None:
        """Append rows (N, columns)."""
        stored = rows.to("cpu", DTYPES[self._spec.dtype][1]).contiguous()
        # numpy has no bf16, so the raw bytes are written
        plain = stored.view(torch.uint8).numpy()
        with disk_errors_explained(self._folder, self._spec.num_bytes):
            self._stream.write(plain.tobytes())
        self.rows += len(rows)

    def sync(self) -> None:
        """Make all rows so far survive a kill."""
        with disk_errors_explained(self._folder, self._spec.num_bytes):
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()


def read_tensor(file: Path) -> Tensor:
    """The matrix as a memory map; only rows that are accessed are read.

    Raises:
        ArtifactError: the file is missing, truncated or in another format.
    """
    try:
        with safe_open(file, "pt") as stored:
            return stored.get_tensor(TENSOR)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{file} cannot be read ({error}); remove the cache's folder and run its step again"
        ) from error
