"""Packed integers come back exactly, take the space they claim, and damage is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import simulated
from attar.errors import ArtifactError
from attar.models.simulated.packing import pack, read_integers, read_tensors, size_mib, unpack
from attar.models.simulated.qparams import ModelQParams
from attar.models.simulated.quantized import load_simulated
from attar.numerics.affine import integer_range


@settings(max_examples=80, deadline=None)
@given(
    bits=st.integers(2, 8),
    full_range=st.booleans(),
    rows=st.integers(1, 9),
    columns=st.integers(1, 21),
    seed=st.integers(0, 1000),
)
def test_unpack_undoes_pack_at_the_size_of_the_bits(bits, full_range, rows, columns, seed):
    low, high = integer_range(bits, symmetric=True, full_range=full_range)
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(low, high + 1, (rows, columns), generator=generator).int()
    packed = pack(integers, bits, low)
    assert torch.equal(unpack(packed, bits, low, columns), integers)
    assert packed.numel() * packed.element_size() == rows * -(-columns * bits // 8)


def test_packing_in_pieces_of_rows_is_packing_at_once():
    integers = torch.randint(-3, 4, (9000, 5), generator=torch.Generator().manual_seed(0)).int()
    packed = pack(integers, 3, -3)
    assert torch.equal(packed[8000:8010], pack(integers[8000:8010], 3, -3))
    assert torch.equal(unpack(packed, 3, -3, 5), integers)


@pytest.fixture(scope="module", params=[8, 3])
def made(request, tmp_path_factory) -> simulated.QuantizedRun:
    root = tmp_path_factory.mktemp(f"packed{request.param}")
    return simulated.run_quantize(root, weight_bits=request.param)


@pytest.fixture
def damaged(made, tmp_path) -> Path:
    """A copy of the model folder, free to be broken."""
    return shutil.copytree(made.folder, tmp_path / "model")


def test_the_file_holds_every_tensor_of_the_model_once(made):
    qparams = ModelQParams.read(made.folder)
    stored = load_file(made.folder / "weights.safetensors")
    model = load_simulated(made.folder).model
    names = set(model.state_dict())
    expected = {f"{w.fqn}.{part}" for w in qparams.weights for part in ("packed", "scale")}
    expected |= names - {w.fqn for w in qparams.weights}
    assert set(stored) == expected
    assert set(read_tensors(made.folder, qparams)) == names


def test_the_size_is_that_of_the_two_files_and_shrinks_with_the_bits(made):
    files = [made.folder / name for name in ("weights.safetensors", "qparams.json")]
    assert size_mib(made.folder) == sum(file.stat().st_size for file in files) / 2**20
    assert size_mib(made.folder) == made.metrics["size_mib"]
    bits = made.metrics["weight_bits"]
    stored = load_file(made.folder / "weights.safetensors")
    packed = sum(t.numel() for name, t in stored.items() if name.endswith(".packed"))
    values = sum(w.shape[0] * w.shape[1] for w in ModelQParams.read(made.folder).weights)
    assert packed == pytest.approx(values * bits / 8, rel=0.01)


def test_tied_tensors_are_stored_once_and_come_back_together(made, damaged):
    file = damaged / "qparams.json"
    content = json.loads(file.read_text())
    content["tied"] = {"twin.weight": "classifier.weight"}
    file.write_text(json.dumps(content))
    tensors = read_tensors(damaged, ModelQParams.read(damaged))
    assert tensors["twin.weight"] is tensors["classifier.weight"]
    content["tied"] = {"twin.weight": "nowhere"}
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"nowhere, which twin\.weight is tied to, is missing"):
        read_tensors(damaged, ModelQParams.read(damaged))


def change(folder: Path, edit) -> None:
    tensors = load_file(folder / "weights.safetensors")
    edit(tensors)
    save_file(tensors, folder / "weights.safetensors")


def drop(name: str):
    return lambda tensors: tensors.pop(name)


def put(name: str, value: Tensor):
    return lambda tensors: tensors.update({name: value})


NAME = "classifier.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop(f"{NAME}.packed"), f"{NAME} is missing"),
        (drop(f"{NAME}.scale"), f"{NAME} is missing"),
        (put(f"{NAME}.packed", torch.zeros(3, 5, dtype=torch.int16)), "bits need"),
        (put(f"{NAME}.scale", torch.zeros(4)), "scales of"),
        (put(f"{NAME}.scale", torch.tensor([1.0, 0.0, 1.0])), "not a positive number"),
        (put(f"{NAME}.scale", torch.tensor([1.0, float("nan"), 1.0])), "not a positive number"),
        (drop("classifier.bias"), "does not fit config.json"),
        (put("stranger", torch.zeros(2)), "does not fit config.json"),
        (put("classifier.bias", torch.zeros(5)), "does not fit config.json"),
    ],
)
def test_tensors_that_do_not_fit_are_named(damaged, edit, message):
    change(damaged, edit)
    with pytest.raises(ArtifactError, match=message):
        load_simulated(damaged)


def test_an_integer_outside_its_range_is_found(damaged):
    def edit(tensors: dict[str, Tensor]) -> None:
        packed = tensors[f"{NAME}.packed"]
        # the one pattern that symmetric grids leave out: all ones, or −128
        packed[0, 0] = -128 if packed.dtype == torch.int8 else 255

    change(damaged, edit)
    with pytest.raises(ArtifactError, match="exceeds its range"):
        read_integers(damaged, ModelQParams.read(damaged))


@pytest.mark.parametrize("keep", [0, 7, 500, -1])
def test_a_truncated_file_is_refused(damaged, keep):
    file = damaged / "weights.safetensors"
    os.truncate(file, keep if keep >= 0 else file.stat().st_size + keep)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors is (truncated|damaged)"):
        load_simulated(damaged)


@pytest.mark.parametrize("name", ["weights.safetensors", "qparams.json"])
def test_a_missing_file_is_named(damaged, name):
    (damaged / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} does not exist"):
        load_simulated(damaged)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format=2), "format 2, this version of attar reads format 1"),
        (lambda c: c["sites"][0].update(scale=0), "scale"),
        (lambda c: c["sites"][0].update(scale="NaN"), "scale"),
        (lambda c: c["sites"][0].update(zero_point=256), "zero_point 256 is not in 0 … 255"),
        (lambda c: c["sites"][0].update(quant_max=256), "not a valid range"),
        (lambda c: c["sites"].append(c["sites"][0]), "named more than once"),
        (lambda c: c["weights"][0].update(bits=9), "bits"),
        (lambda c: c["weights"][0].update(axis=1), "axis"),
        (lambda c: c.update(surprise=1), "surprise"),
    ],
)
def test_qparams_that_contradict_themselves_are_refused(damaged, edit, message):
    file = damaged / "qparams.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=message):
        ModelQParams.read(damaged)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": 1}'])
def test_a_file_that_is_no_qparams_is_refused(damaged, text):
    (damaged / "qparams.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"qparams\.json"):
        ModelQParams.read(damaged)


def test_qparams_survive_writing_and_reading(made, tmp_path):
    found = ModelQParams.read(made.folder)
    found.write(tmp_path)
    assert ModelQParams.read(tmp_path) == found
    for site in found.sites:
        assert float(torch.tensor(site.scale)) == site.scale, "scales are float32 numbers"
        assert site.low <= 0 <= site.high
