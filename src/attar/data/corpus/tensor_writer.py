"""Write a safetensors file of columns larger than memory, part by part.

The format stores one tensor after the other, so each part is written at its offset in each tensor.
The length of the columns must be known in advance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

NAMES = {"int64": "I64", "float32": "F32"}
"""dtype → its name in the safetensors format."""
ALIGNMENT = 8


class TensorWriter:
    """Writes columns of `count` numbers each.

    Args:
        types: name of a column → its type.
    """

    def __init__(self, file: Path, types: Mapping[str, np.dtype], count: int) -> None:
        self._types = dict(sorted(types.items(), key=lambda each: (-each[1].itemsize, each[0])))
        self._offsets: dict[str, int] = {}
        self._written, begin, header = 0, 0, dict[str, Any]()
        for name, kind in self._types.items():
            end = begin + count * kind.itemsize
            header[name] = {
                "dtype": NAMES[kind.name],
                "shape": [count],
                "data_offsets": [begin, end],
            }
            self._offsets[name], begin = begin, end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        self._begin = 8 + len(text)
        self._stream: BinaryIO = file.open("xb")
        self._stream.write(len(text).to_bytes(8, "little") + text)

    def write(self, part: Mapping[str, NDArray[Any]]) -> None:
        """Write the next values of every column."""
        for name, kind in self._types.items():
            place = self._begin + self._offsets[name] + self._written * kind.itemsize
            self._stream.seek(place)
            self._stream.write(np.ascontiguousarray(part[name], kind).tobytes())
        self._written += len(next(iter(part.values())))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
