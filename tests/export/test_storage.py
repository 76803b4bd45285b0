from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

from attar.export import storage
from attar.export.storage import bits_needed, in_bytes, pack_onnx_, pack_openvino_, planes_of
from attar.models.deployed.cpu_runtimes import OnnxRuntime, the_core
from attar.models.deployed.runtimes import MODEL_FILES
from deployments import Deployments

SIDE = 64


def integers(bits: int, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """Every value of that many bits, the ends among them."""
    random = np.random.default_rng(bits)
    values = random.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.int8)
    values[0, :2] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return values


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_bits_needed_are_those_of_the_ends(bits: int) -> None:
    assert bits_needed(integers(bits)) == bits


@pytest.mark.parametrize("bits", range(1, 8))
def test_planes_add_up_and_take_their_own_bits(bits: int) -> None:
    values = integers(bits, (7, 5))
    planes = planes_of(values, bits)
    total = sum(plane.values.astype(np.int16) << plane.shift for plane in planes)
    assert np.array_equal(total - 2 ** (bits - 1), values)
    assert sum(plane.width for plane in planes) == bits
    for plane in planes:
        packed = in_bytes(plane)
        assert packed.size == -(-values.size * plane.width // 8)
        flat = np.unpackbits(packed, bitorder="little")[: values.size * plane.width]
        weights = 1 << np.arange(plane.width)
        assert np.array_equal(flat.reshape(-1, plane.width) @ weights, plane.values.reshape(-1))


def onnx_table(values: np.ndarray) -> onnx.ModelProto:
    """A graph that gives back its one weight."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gather", ["w.integers", "ids"], ["rows"]),
            onnx.helper.make_node("Cast", ["rows"], ["out"], to=onnx.TensorProto.FLOAT),
        ],
        "table",
        [info("ids", onnx.TensorProto.INT64, ["n"])],
        [info("out", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(values, "w.integers")],
    )
    assert graph.initializer[0].data_type == kind
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("unsigned", [False, True])
def test_onnx_runtime_unpacks_every_width_exactly_when_it_loads(
    tmp_path: Path, bits: int, unsigned: bool
) -> None:
    values = integers(bits, (SIDE, SIDE + 1))
    stored = (values.astype(np.int16) + 128).astype(np.uint8) if unsigned else values
    model = onnx_table(stored)
    before = model.ByteSize()
    pack_onnx_(model.graph)
    assert model.ByteSize() < before * bits / 8 + 3000  # the nodes
    onnx.save(model, tmp_path / "m.onnx")
    runtime = OnnxRuntime(tmp_path / "m.onnx", 1, tmp_path / "optimized.onnx")
    assert np.array_equal(runtime.logits({"ids": np.arange(SIDE)}), stored)
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert kinds == {"Gather", "Cast"}


@pytest.mark.parametrize("bits", range(2, 8))
def test_openvino_unpacks_every_width_exactly_and_stores_the_next_it_has(
    tmp_path: Path, bits: int
) -> None:
    from openvino import opset13

    values = integers(bits)
    ids = opset13.parameter([-1], np.int64, name="ids")
    rows = opset13.gather(opset13.constant(values), ids, np.int64(0))
    model = openvino.Model([opset13.convert(rows, np.float32)], [ids])
    pack_openvino_(model)
    openvino.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    width = {2: 2, 3: 3, 4: 4, 5: 6, 6: 6, 7: 8}[bits]
    assert (tmp_path / "m.bin").stat().st_size <= values.size * width / 8 + 64
    core = the_core()
    found = core.compile_model(core.read_model(tmp_path / "m.xml"), "CPU")(np.arange(SIDE))[0]
    assert np.array_equal(found, values)


def test_small_and_eight_bit_tensors_stay_as_they_are() -> None:
    for values in (integers(4, (8, 8)), integers(8)):
        model = onnx_table(values)
        before = model.SerializeToString()
        pack_onnx_(model.graph)
        assert model.SerializeToString() == before


def test_small_constants_of_openvino_stay_as_they_are() -> None:
    from openvino import opset13

    ids = opset13.parameter([-1], np.int64, name="ids")
    rows = opset13.gather(opset13.constant(integers(4, (8, 8))), ids, np.int64(0))
    model = openvino.Model([opset13.convert(rows, np.float32)], [ids])
    pack_openvino_(model)
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    assert openvino.Type.i8 in {op.get_element_type() for op in constants}
    assert openvino.Type.u4 not in {op.get_element_type() for op in constants}


@pytest.mark.parametrize("form", ["openvino", "onnxruntime"])
def test_storage_changes_the_size_and_no_answer(
    deployments: Deployments, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.export.openvino import write_openvino
    from attar.models.deployed.cpu_runtimes import OpenVinoRuntime

    monkeypatch.setattr(storage, "SMALLEST", 256)
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    ids = np.arange(24).reshape(4, 6) + 5
    batch = {"input_ids": ids, "attention_mask": 0 * ids + 1, "token_type_ids": 0 * ids}
    answers, sizes = [], []
    for how in ("int8", "packed"):
        folder = tmp_path / how
        folder.mkdir()
        if form == "openvino":
            write_openvino(deployments.int4() / "model", folder, inputs, storage=how)  # pyright: ignore[reportArgumentType]
        else:  # of the shared export all tensors were too small; packing is the last that is done
            proto = onnx.load(deployments.export("int4", form)[0] / "model.onnx")
            if how == "packed":
                storage.pack_onnx_(proto.graph)
            onnx.save(proto, folder / "model.onnx")
        file = folder / MODEL_FILES[form][0]  # pyright: ignore[reportArgumentType]
        runtime = OpenVinoRuntime(file, 1) if form == "openvino" else OnnxRuntime(file, 1)
        answers.append(runtime.logits(batch))
        sizes.append((folder / MODEL_FILES[form][-1]).stat().st_size)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(*answers)
    if form == "openvino":  # 20,000 weights; ONNX keeps graph and weights in one file
        assert sizes[0] - sizes[1] > 0.9 * 20_000 / 2
