"""Columns that are written part by part are the file that safetensors writes of them whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from attar.data.corpus.tensor_writer import TensorWriter


@pytest.mark.parametrize("splits", [(), (0, 3), (1, 2, 11, 11)])
def test_parts_make_the_same_file(tmp_path: Path, splits: tuple[int, ...]) -> None:
    columns = {
        "teacher": np.linspace(-1, 1, 11).astype(np.float32),
        "row": np.arange(11),
        "reference": np.zeros(11, np.float32),
    }
    types = {name: values.dtype for name, values in columns.items()}
    with TensorWriter(tmp_path / "file", types, 11) as writer:
        for begin, end in zip((0, *splits), (*splits, 11), strict=True):
            writer.write({name: values[begin:end] for name, values in columns.items()})
    assert (tmp_path / "file").read_bytes() == save(columns)
