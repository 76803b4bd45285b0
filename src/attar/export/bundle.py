"""What travels with an exported model, so that its folder can be used without attar.

Beside graph and weights: the tokenizer as one file, the task, the config (for people and for
tools), `deploy.json` that seals them, and `predict.py`, which needs the runtime, tokenizers and
numpy and nothing of ours.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from attar.artifacts import disk_errors_explained, sha256_of
from attar.errors import ArtifactError
from attar.extras import require
from attar.models.cost import flops, num_params
from attar.models.runtimes import MODEL_FILES, Deployment, Flops, RuntimeName
from attar.models.task import TASK_FILE

CARRIED_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json", TASK_FILE)
"""Copied from the model folder; what an answer depends on is sealed in deploy.json."""
OPTIONAL_FILES = ("tokenizer_config.json",)

OPEN_OPENVINO = """\
import openvino
settings = {"INFERENCE_PRECISION_HINT": "f32"}  # or float parts are rounded to bf16 on some CPUs
model = openvino.Core().compile_model(here / "openvino_model.xml", "CPU", settings)
run = lambda inputs: model(inputs)[0]
"""
OPEN_ONNX = """\
import onnxruntime
session = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
run = lambda inputs: session.run(None, inputs)[0]
"""


def write_bundle(model_folder: Path, folder: Path) -> None:
    """Copy what the model needs beside its graph.

    Raises:
        ArtifactError: the model folder lacks one of the files.
    """
    for name in CARRIED_FILES:
        source = model_folder / name
        if source.is_file():
            with disk_errors_explained(folder, source.stat().st_size):
                shutil.copyfile(source, folder / name)
        elif name not in OPTIONAL_FILES:
            raise ArtifactError(
                f"{model_folder} has no {name}, which an exported model needs; make the model again"
            )


def write_snippet(folder: Path, form: RuntimeName, input_names: tuple[str, ...]) -> None:
    """Write `predict.py`."""
    package = "openvino" if form == "openvino" else "onnxruntime"
    lines = [
        f'# pip install {package} tokenizers numpy;  python predict.py "a text" ["second part"]',
        "import json, sys, pathlib, numpy, tokenizers",
        "here = pathlib.Path(__file__).parent",
        'task = json.loads((here / "task.json").read_text(encoding="utf-8"))',
        'words = tokenizers.Tokenizer.from_file(str(here / "tokenizer.json"))',
        'words.no_padding(); words.enable_truncation(task["max_length"])',
        (OPEN_OPENVINO if form == "openvino" else OPEN_ONNX).rstrip(),
        "text = words.encode(*sys.argv[1:3])",
        "known = {" + ", ".join(f'"{name}": text.{FIELDS[name]}' for name in input_names) + "}",
        "logits = run({name: numpy.array([ids]) for name, ids in known.items()})[0]",
        "share = numpy.exp(logits - logits.max()) / numpy.exp(logits - logits.max()).sum()",
        'names = task["label_names"]',
        'print(f"{names[share.argmax()]}  {share.max():.3f}" if len(names) > 1 else logits[0])',
    ]
    (folder / "predict.py").write_text("\n".join(lines) + "\n", encoding="utf-8")


FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Model input → where the tokenizers library keeps it."""


def flops_formula(model: Any) -> Flops:
    """The exact polynomial behind the FLOPs of a forward pass, from three lengths.

    Every operation that is counted grows with texts, with tokens, or with pairs of tokens, so three
    values determine it and a fourth checks it.
    """
    at_1, at_2, at_3 = (flops(model, 1, tokens) for tokens in (1, 2, 3))
    per_pair = (at_3 - 2 * at_2 + at_1) // 2
    per_token = at_2 - at_1 - 3 * per_pair
    found = Flops(
        per_text=at_1 - per_token - per_pair, per_token=per_token, per_token_pair=per_pair
    )
    assert found.of(3, 7) == flops(model, 3, 7), "FLOPs are no polynomial of the length"
    return found


def seal(
    folder: Path,
    form: RuntimeName,
    model: Any,
    input_names: tuple[str, ...],
    **facts: Any,
) -> Deployment:
    """Write `deploy.json` over the files that are there now.

    Args:
        model: the torch model it was made from; its parameters and FLOPs are counted.
        facts: the other fields of `Deployment`.
    """
    names = [*MODEL_FILES[form], *(n for n in CARRIED_FILES if (folder / n).is_file())]
    libraries = ("openvino",) if form == "openvino" else ("onnx", "onnxruntime")
    deployment = Deployment(
        format=form,
        files={name: sha256_of(folder / name) for name in names},
        input_names=input_names,
        num_params=num_params(model),
        flops=flops_formula(model),
        made_with={name: str(require(name, "export").__version__) for name in libraries},
        **facts,
    )
    deployment.write(folder)
    return deployment
