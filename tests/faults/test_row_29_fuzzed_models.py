"""Row 29: whatever is damaged in a model folder, loading it and asking it raises only errors of
attar's own, each with its exit code and one message.

The files of a float folder and of the three exported forms are damaged: bytes flipped, cut,
doubled; any value of any JSON replaced by one of another type or size, removed or renamed. Exported
folders are sealed again, as whoever damages them on purpose would, so that the damage gets far.
For many more examples: FUZZ_EXAMPLES=2000 pytest tests/faults/test_row_29_fuzzed_models.py
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attar
from attar.artifacts import sha256_of
from attar.errors import AttarError
from attar.models.deployed.runtimes import DEPLOY_FILE
from attar.models.load import load_model
from attar.models.sources.references import model_fingerprint
from deployments import Deployments

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 255, 2**31 - 1, 2**31, 2**63, 10**39, -(10**39)),
    *(0.0, -0.5, 1e-300, 1e308, "", "a", "[CLS]", "5", "é\0", "x" * 3000, "../x", "/dev/zero"),
    *([], {}, [1], ["a"], {"a": 1}, [[[]]], [0] * 500, {"0": "a", "1": "b"}, ["a", "a"]),
)
PAPERS = ("task.json", "tokenizer.json", "tokenizer_config.json", "config.json", "deploy.json")
FILES = {
    "float": ("model.safetensors", "generation_config.json", *PAPERS[:-1]),
    "index": ("model.safetensors.index.json", "part.safetensors"),
    "openvino": ("openvino_model.xml", "openvino_model.bin", *PAPERS),
    "onnxruntime": ("model.onnx", *PAPERS),
    "safetensors": ("weights.safetensors", "qparams.json", *PAPERS),
}


def places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value; of long tables and lists only to the first few."""
    inner = list(content.items() if isinstance(content, dict) else enumerate(content))[:40]
    for name, value in inner:
        yield (*place, name)
        if isinstance(value, (dict, list)):
            yield from places(value, (*place, name))


def damage_json(content: Any, draw: Callable[[Any], Any]) -> Any:
    for _ in range(draw(st.integers(1, 2))):
        found = list(places(content))
        if not found:
            return content
        *way, last = draw(st.sampled_from(found))
        parent = content
        for name in way:
            parent = parent[name]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "rename", "double", "wrap"]))
        value = parent[last]
        if kind == "replace":
            parent[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif kind == "remove":
            del parent[last]
        elif kind == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "a", "auto_map", "__class__", "to_dict"]))] = value
        elif kind == "double":
            parent[last] = value + value if isinstance(value, (str, list)) else [value, 1]
        else:
            parent[last] = {"a": value}
    return content


def damage_bytes(raw: bytes, draw: Callable[[Any], Any]) -> bytes:
    content = bytearray(raw)
    begin = draw(st.one_of(st.integers(0, min(400, len(raw))), st.integers(0, len(raw))))
    kind = draw(st.sampled_from(["flip", "cut", "insert", "zero", "double", "remove"]))
    if kind == "flip":
        for offset in draw(st.lists(st.integers(0, max(len(raw) - 1, 0)), min_size=1, max_size=4)):
            place = (begin + offset) % max(len(content), 1)
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
    elif kind == "cut":
        del content[begin:]
    elif kind == "insert":
        content[begin:begin] = draw(st.binary(min_size=1, max_size=20))
    elif kind == "zero":
        content[begin : begin + 16] = bytes(16)
    elif kind == "double":
        content[begin:begin] = content[: draw(st.integers(0, 3000))]
    else:
        del content[begin : begin + draw(st.integers(1, 300))]
    return bytes(content)


def damage_header(raw: bytes, draw: Callable[[Any], Any]) -> bytes:
    """The header of a safetensors file, whose length is put right."""
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps(damage_json(json.loads(raw[8 : 8 + length]), draw)).encode()
    return len(header).to_bytes(8, "little") + header + raw[8 + length :]


def damage(file: Path, draw: Callable[[Any], Any]) -> None:
    raw = file.read_bytes()
    as_text = draw(st.integers(0, 3)) > 0
    if as_text and file.suffix == ".json":
        file.write_text(json.dumps(damage_json(json.loads(raw), draw)))
    elif as_text and file.suffix == ".safetensors":
        file.write_bytes(damage_header(raw, draw))
    else:
        file.write_bytes(damage_bytes(raw, draw))


def seal(folder: Path) -> None:
    """Put the hashes of deploy.json right, where it still has a table of them."""
    file = folder / DEPLOY_FILE
    try:
        content = json.loads(file.read_text())
        known = [name for name in content["files"] if (folder / name).is_file()]
        content["files"] |= {name: sha256_of(folder / name) for name in known}
        file.write_text(json.dumps(content))
    except (ValueError, TypeError, KeyError, AttributeError):
        return


def use(folder: Path, form: str) -> None:
    if form in ("float", "index"):
        model_fingerprint(str(folder), folder.parent)
        load_model(folder)
    else:
        model_fingerprint(str(folder), folder.parent)
        attar.load(folder, threads=1).predict(["a good film", "to", "good film " * 60])


@pytest.fixture(scope="module")
def originals(
    deployments: Deployments, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    indexed = tmp_path_factory.mktemp("indexed") / "model"
    shutil.copytree(deployments.float() / "model", indexed)
    (indexed / "model.safetensors").rename(indexed / "part.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "part.safetensors"}}
    (indexed / "model.safetensors.index.json").write_text(json.dumps(index))
    plain = tmp_path_factory.mktemp("plain") / "model"
    shutil.copytree(deployments.float() / "model", plain)
    (plain / "generation_config.json").write_text('{"num_beams": 2, "transformers_version": "5"}')
    exported = {form: deployments.export("int8", form)[0] for form in list(FILES)[2:]}
    return {"float": plain, "index": indexed, **exported}


@pytest.mark.parametrize("form", FILES)
def test_only_errors_of_attar_come_out_of_a_damaged_folder(
    form: str, originals: dict[str, Path], tmp_path: Path
) -> None:
    use(originals[form], form)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def law(data: st.DataObject) -> None:
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(originals[form], folder)
        name = data.draw(st.sampled_from(FILES[form]))
        damage(folder / name, data.draw)
        if form not in ("float", "index"):
            seal(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                use(folder, form)
            except AttarError as error:
                assert error.exit_code in (2, 3, 4, 5)
                assert str(error)

    law()
