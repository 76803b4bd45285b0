"""Row 7: a disk that fills up inside a runtime's own writer, wherever in it: exit 4 with the bytes.

OpenVINO's streams say only "basic_ios::clear: iostream error".
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch

from attar.errors import ResourceError
from attar.export.onnxruntime import write_onnx
from attar.export.openvino import write_openvino
from attar.models.deployed.runtimes import MODEL_FILES
from deployments import Deployments
from small_disks import small_disk_of

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WRITERS = {"openvino": write_openvino, "onnxruntime": write_onnx}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_of(1024, tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize(("form", "shares"), [("openvino", (0, 0.3, 0.9)), ("onnxruntime", (0.5,))])
def test_a_disk_that_fills_up_inside_the_writer_is_said_with_the_bytes(
    form: str,
    shares: tuple[float, ...],
    small_disk: Path,
    deployments: Deployments,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`shares`: how much of what is needed is free. For ONNX Runtime torch gives the graph that it
    gave before: to trace it again takes seconds."""
    good, _ = deployments.export("int8", form)
    if form == "onnxruntime":
        traced = SimpleNamespace(model_proto=onnx.load(good / "model.onnx"))
        monkeypatch.setattr(torch.onnx, "export", lambda *given, **settings: traced)
    size_kib = sum((good / name).stat().st_size for name in MODEL_FILES[form]) / 1024
    for share in shares:
        for file in small_disk.iterdir():
            file.unlink()
        free = shutil.disk_usage(small_disk).free
        (small_disk / "filler").write_bytes(b"x" * (free - int(share * size_kib) * 1024))
        with pytest.raises(ResourceError, match="disk full while writing below") as caught:
            WRITERS[form](deployments.int8() / "model", small_disk, INPUTS)
        told = re.search(r"([\d.]+) MiB are free, ([\d.]+) MiB are needed", str(caught.value))
        assert told is not None
        assert float(told[1]) <= share * size_kib / 1024 + 0.05
        assert float(told[2]) == pytest.approx(size_kib / 1024, abs=0.06)


def test_what_is_no_full_disk_keeps_its_own_error(deployments: Deployments, tmp_path: Path) -> None:
    (tmp_path / "openvino_model.xml").mkdir()
    with pytest.raises(RuntimeError):
        write_openvino(deployments.int8() / "model", tmp_path, INPUTS)
