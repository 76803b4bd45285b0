"""Row 29: a damaged or absurd model ends with exit 2, 3 or 4 and one message, in bounded time and
memory. Each case here once ended with a traceback, hung, or took gigabytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import attar
import tiny_recipe
from attar.artifacts import sha256_of
from attar.errors import ArtifactError, AttarError, ModelError, ResourceError
from attar.models.deployed.runtimes import DEPLOY_FILE
from attar.models.load import load_model
from attar.tasks.task import Task
from deployments import Deployments


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def seal(folder: Path) -> None:
    """The hashes of deploy.json, as whoever changes the files can write them."""
    content = json.loads((folder / DEPLOY_FILE).read_text())
    files = {name: sha256_of(folder / name) for name in content["files"]}
    edit(folder / DEPLOY_FILE, files=files)


@pytest.fixture
def model(deployments: Deployments, tmp_path: Path) -> Path:
    return Path(shutil.copytree(deployments.float() / "model", tmp_path / "model"))


@pytest.fixture
def exported(deployments: Deployments, tmp_path: Path) -> Callable[[str], Path]:
    def copied(form: str) -> Path:
        return Path(shutil.copytree(deployments.export("int8", form)[0], tmp_path / form))

    return copied


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"num_attention_heads": 0}, ModelError, "num_attention_heads is 0, it must be 1 to"),
        ({"vocab_size": -5}, ModelError, "vocab_size is -5, it must be 1 to"),
        (
            {"num_hidden_layers": 10**7},
            ModelError,
            "num_hidden_layers is 10000000, it must be 1 to 1000",
        ),
        ({"num_hidden_layers": 1e300}, ModelError, "num_hidden_layers is 1e.300"),
        ({"num_labels": 10**9}, ModelError, "num_labels is 1000000000"),
        ({"hidden_size": 10**12}, ModelError, "hidden_size is 1000000000000"),
        (
            {"hidden_size": 10**9},
            ResourceError,
            "take .* MiB as float32, .* MiB of memory are available",
        ),
        ({"vocab_size": 2**31 - 1, "hidden_size": 2**20}, ResourceError, "take .* MiB as float32"),
        ({"num_attention_heads": 5}, ModelError, "cannot build .*multiple of the number of att"),
        ({"hidden_act": "nothing"}, ModelError, "cannot build .*KeyError.*nothing"),
        ({"architectures": [5]}, ModelError, r"architectures must be a list of class names, got"),
        ({"architectures": "Bert"}, ModelError, r"architectures must be a list of class names"),
        ({"architectures": ["RagModel"]}, ModelError, "no architecture 'RagModel'"),
        ({"model_type": "rag"}, ModelError, "type 'rag' are not supported"),
        ({"model_type": ["bert"]}, ModelError, "names no model_type"),
        ({"to_dict": 1}, ModelError, "field 'to_dict', which overrides code of transformers"),
        ({"__class__": "x"}, ModelError, "field '__class__'"),
        ({"attribute_map": {"vocab_size": "x"}}, ModelError, "field 'attribute_map'"),
        ({"use_return_dict": True}, ModelError, "not a config of model_type 'bert'"),
    ],
)
@pytest.mark.parametrize("form", ["float", "packed"])
def test_a_config_of_a_model_that_cannot_be(
    changes: dict[str, Any],
    error: type[AttarError],
    words: str,
    form: str,
    model: Path,
    exported: Callable[[str], Path],
) -> None:
    """As a float model without a task, so that `architectures` counts, and as packed integers."""
    if form == "packed":
        folder = exported("safetensors")
        edit(folder / "config.json", **changes)
        seal(folder)
        with pytest.raises(error, match=words):
            attar.load(folder, threads=1)
        return
    (model / "task.json").unlink()
    edit(model / "config.json", **{"architectures": ["BertModel"], **changes})
    with pytest.raises(error, match=words):
        load_model(model)


def test_too_many_tensors_are_refused_by_their_number(model: Path) -> None:
    header = {
        f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)
    }
    raw = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(ArtifactError, match=r"holds 20,001 tensors, at most 20,000"):
        load_model(model)


def test_weights_of_other_shapes_are_named_and_nothing_is_built_by_them(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"] = torch.zeros(0, 32)
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(ModelError, match=r"word_embeddings\.weight has shape \(0, 32\)"):
        load_model(model)


@pytest.mark.parametrize("form", ["float", "openvino"])
def test_a_tokenizer_of_gigabytes_is_not_read(
    form: str, model: Path, exported: Callable[[str], Path]
) -> None:
    folder = model if form == "float" else exported(form)
    with (folder / "tokenizer.json").open("r+b") as stream:
        stream.truncate(3 * 2**30)  # takes no room on the disk
    with pytest.raises(ArtifactError, match=r"tokenizer.json has 3,221,225,472 bytes, at most"):
        load_model(folder) if form == "float" else attar.load(folder, threads=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_names": ["a", "b", "c"]}, r"\['a', 'b', 'c'\], and config.json \['bad', 'good'\]"),
        ({"input_names": []}, "lack input_ids"),
        ({"input_names": ["input_ids"]}, "lack attention_mask"),
        ({"max_length": 1e30}, "task.json does not describe a task: max_length"),
        (
            {"max_length": 65},
            "task.json has max_length 65, but the model has 64 pos",
        ),
        ({"label_names": ["good", "bad"]}, r"\['good', 'bad'\], and config.json \['bad', 'good'\]"),
        ({"max_length": 2**20 + 1}, "max_length: .*less than or equal to 1048576"),
        ({"objective": "causal_lm", "label_names": []}, "task is made for causal_lm"),
        ({"label_words": ["x", "y"]}, "task names classes by words"),
        (
            {"objective": "regression", "label_names": []},
            r"shape \(1, 2\) for 1 texts, its task.json says \(1, 1\)",
        ),
    ],
)
@pytest.mark.parametrize("form", ["openvino", "onnxruntime", "safetensors"])
def test_a_task_that_does_not_fit_the_graph(
    changes: dict[str, Any], words: str, form: str, exported: Callable[[str], Path]
) -> None:
    folder = exported(form)
    edit(folder / "task.json", **changes)
    seal(folder)
    if form == "safetensors" and "lack" in words:
        words = "lack|fails|outputs of shape"  # torch fills in what is not given
        if changes["input_names"]:
            return
    with pytest.raises(ArtifactError, match=words):
        attar.load(folder, threads=1).predict(["a good film"])


@pytest.mark.parametrize("form", ["openvino", "onnxruntime", "safetensors"])
def test_an_answer_of_another_shape_than_the_task_says(
    form: str, exported: Callable[[str], Path]
) -> None:
    """Also where no config.json tells it beforehand."""
    folder = exported(form)
    edit(folder / "task.json", label_names=["a", "b", "c"])
    edit(folder / "config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"})
    seal(folder)
    with pytest.raises(
        ArtifactError, match=r"outputs of shape \(1, 2\) for 1 texts, its task.json says \(1, 3\)"
    ):
        attar.load(folder, threads=1).predict(["a good film"])


def test_a_graph_that_is_too_short_for_its_texts_is_refused_before_it_computes(
    exported: Callable[[str], Path],
) -> None:
    """OpenVINO's kernels would write beyond their tensors, and the process die at a later call."""
    folder = exported("openvino")
    edit(folder / "task.json", max_length=400)
    edit(folder / "config.json", max_position_embeddings=512)
    seal(folder)
    with pytest.raises(ArtifactError, match=r"openvino_model\.xml takes no texts of 400 tokens"):
        attar.load(folder, threads=1)


def onnx_with(folder: Path, change: Callable[[Any], None]) -> None:
    import onnx

    proto = onnx.load(folder / "model.onnx")
    change(proto.graph)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    seal(folder)


def vast_constant(graph: Any) -> None:
    """800 GB of zeros, added to the logits."""
    import onnx
    from onnx import helper, numpy_helper

    shape = numpy_helper.from_array(np.array([200, 10**9], dtype=np.int64), "vast_shape")
    graph.initializer.append(shape)
    value = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.0])
    graph.node.append(helper.make_node("ConstantOfShape", ["vast_shape"], ["vast"], value=value))
    graph.node.append(helper.make_node("ReduceSum", ["vast"], ["total"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["logits", "total"], ["more"]))
    graph.output[0].name = "more"


def two_outputs(graph: Any) -> None:
    from onnx import helper

    graph.node.append(helper.make_node("Identity", ["logits"], ["again"]))
    graph.output.add().CopyFrom(graph.output[0])
    graph.output[1].name = "again"


def other_rows(graph: Any) -> None:
    from onnx import helper

    graph.node.append(helper.make_node("Concat", ["logits", "logits"], ["twice"], axis=0))
    graph.output[0].name = "twice"


def other_input(graph: Any) -> None:
    graph.input.add().CopyFrom(graph.input[0])
    graph.input[-1].name = "extra"


def endless_loop(graph: Any) -> None:
    import onnx
    from onnx import helper

    kept = helper.make_tensor_value_info("keep_on", onnx.TensorProto.BOOL, [])
    out = helper.make_tensor_value_info("keep_on_out", onnx.TensorProto.BOOL, [])
    count = helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["keep_on"], ["keep_on_out"])], "body", [count, kept], [out]
    )
    graph.node.append(helper.make_node("Loop", ["", ""], [], body=body))


def outside_weights(name: str) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        import onnx

        tensor = graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", "0"), ("length", "4")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (two_outputs, "has 2 outputs, expected 1"),
        (other_rows, r"outputs of shape \(2, 2\) for 1 texts"),
        (other_input, "lack extra"),
        (endless_loop, r"has a node that holds a graph \(Loop, If or Scan\)"),
        (outside_weights("part.bin"), "reads weights from 'part.bin', a file that deploy.json"),
        (outside_weights("../part.bin"), r"reads weights from '\.\./part.bin'"),
        (vast_constant, "needs more memory than there is|cannot open|fails"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_onnx_graph_that_none_of_our_exports_writes(
    change: Callable[[Any], None], words: str, exported: Callable[[str], Path]
) -> None:
    folder = exported("onnxruntime")
    (folder / "part.bin").write_bytes(bytes(10**6))
    onnx_with(folder, change)
    with pytest.raises((ArtifactError, ResourceError), match=words):
        attar.load(folder, threads=1).predict(["a good film"])


def test_weights_beside_an_onnx_graph_are_hashed(exported: Callable[[str], Path]) -> None:
    import onnx

    folder = exported("onnxruntime")
    proto = onnx.load(folder / "model.onnx")
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="part.bin")
    content = json.loads((folder / DEPLOY_FILE).read_text())
    edit(folder / DEPLOY_FILE, files={**content["files"], "part.bin": ""})
    seal(folder)
    attar.load(folder, threads=1).predict(["a good film"])
    raw = bytearray((folder / "part.bin").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "part.bin").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"part\.bin was changed"):
        attar.load(folder, threads=1)


def test_an_onnx_model_with_functions_of_its_own(exported: Callable[[str], Path]) -> None:
    import onnx
    from onnx import helper

    folder = exported("onnxruntime")
    proto = onnx.load(folder / "model.onnx")
    body = [helper.make_node("Identity", ["x"], ["y"])]
    opset = [helper.make_opsetid("", 21)]
    proto.functions.append(helper.make_function("own", "f", ["x"], ["y"], body, opset))
    onnx.save(proto, folder / "model.onnx")
    seal(folder)
    with pytest.raises(ArtifactError, match="defines functions of its own"):
        attar.load(folder, threads=1)


def impossible_shape(text: str) -> str:
    return re.sub(r'(element_type="f32" shape=)"[^"]+"', r'\1"99999999999999999"', text, count=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (impossible_shape, "cannot open .*openvino_model.xml|fails"),
        (lambda text: "<net>" + "<a>" * 200_000 + "</a>" * 200_000 + "</net>", "nested deeper"),
        (lambda text: text.replace("<layers>", "<layers><body/>", 1), "layer that holds a graph"),
        (lambda text: '<!DOCTYPE a [<!ENTITY b "c">]>' + text.split("?>", 1)[1], "document type"),
        (lambda text: "<html/>", "begins with <html>, expected <net>"),
        (lambda text: text[: len(text) // 2], "it is not the XML of an OpenVINO model"),
        (lambda text: text.replace('type="Parameter"', 'type="Nothing"', 1), "cannot open"),
    ],
    ids=["shape", "deep", "loop", "entity", "html", "half", "operator"],
)
def test_an_openvino_graph_that_none_of_our_exports_writes(
    change: Callable[[str], str], words: str, exported: Callable[[str], Path]
) -> None:
    folder = exported("openvino")
    file = folder / "openvino_model.xml"
    file.write_text(change(file.read_text()))
    seal(folder)
    with pytest.raises(ArtifactError, match=words):
        attar.load(folder, threads=1).predict(["a good film"])


def test_an_onnx_file_by_the_name_of_an_openvino_model(
    exported: Callable[[str], Path],
) -> None:
    folder = exported("openvino")
    shutil.copy(exported("onnxruntime") / "model.onnx", folder / "openvino_model.xml")
    seal(folder)
    with pytest.raises(ArtifactError, match="it is not the XML of an OpenVINO model"):
        attar.load(folder, threads=1)


def test_the_command_line_ends_with_the_exit_code_and_one_message(
    exported: Callable[[str], Path],
) -> None:
    folder = exported("safetensors")
    edit(folder / "config.json", hidden_size=10**9)
    seal(folder)
    done = tiny_recipe.attar("predict", folder, "a film", "--threads", "1")
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "template", ["{0:>999999999}", "{0.__class__}", "{0[0]}", "{0!r:>99}", "{}"]
)
def test_a_template_does_nothing_but_place_texts(template: str) -> None:
    task = Task(
        objective="classification",
        label_names=("a", "b"),
        max_length=8,
        input_names=("input_ids",),
        template=template,
    )
    with pytest.raises(AttarError, match="reads rows as"):
        task.prompt(("x",))
