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
from attar.models.cost import Cost
from attar.models.deployed.runtimes import MODEL_FILES, Deployment, Flops, RuntimeName
from attar.models.task import TASK_FILE, Task

CARRIED_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json", TASK_FILE)
"""Copied from the model folder; what an answer depends on is sealed in deploy.json."""
OPTIONAL_FILES = ("tokenizer_config.json",)

FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Model input → where the tokenizers library keeps it."""

OPEN_AND_RUN = {
    "openvino": (
        "precision = {'INFERENCE_PRECISION_HINT': 'f32'}  # or some CPUs round floats to bf16",
        "model = openvino.Core().compile_model(here / 'openvino_model.xml', 'CPU', precision)",
        "logits = model(inputs)[0][0]",
    ),
    "onnxruntime": (
        "model = onnxruntime.InferenceSession(here / 'model.onnx')",
        "logits = model.run(None, inputs)[0][0]",
    ),
}
ANSWER = {
    "classification": (
        "share = numpy.exp(logits - logits.max()) / numpy.exp(logits - logits.max()).sum()",
        "print(f\"{task['label_names'][share.argmax()]}  {share.max():.3f}\")",
    ),
    "regression": ("print(f'{logits[0]:.4f}')",),
}


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


def write_snippet(folder: Path, form: RuntimeName, task: Task) -> None:
    """Write `predict.py`: from a text on the command line to an answer in a dozen lines."""
    ids = ", ".join(f"text.{FIELDS[name]}" for name in task.input_names)
    lines = (
        f'# pip install {form} tokenizers numpy;  python predict.py "a text" ["its second part"]',
        f"import json, pathlib, sys, numpy, {form}, tokenizers",
        "here = pathlib.Path(__file__).parent",
        "task = json.loads((here / 'task.json').read_text(encoding='utf-8'))",
        "words = tokenizers.Tokenizer.from_file(str(here / 'tokenizer.json'))",
        "words.no_padding(); words.enable_truncation(task['max_length'])",
        "text = words.encode(*sys.argv[1:3])",
        f"ids = numpy.array([{ids}])",
        "inputs = dict(zip(task['input_names'], ids[:, None]))",
        *OPEN_AND_RUN[form],
        *ANSWER[task.objective],
    )
    (folder / "predict.py").write_text("\n".join(lines) + "\n", encoding="utf-8")


def flops_formula(cost: Cost) -> Flops:
    """The exact polynomial behind the FLOPs of a forward pass, from three lengths.

    Every operation that is counted grows with texts, with tokens, or with pairs of tokens, so three
    values determine it and a fourth checks it.
    """
    at_1, at_2, at_3 = (cost.flops(1, tokens) for tokens in (1, 2, 3))
    per_pair = (at_3 - 2 * at_2 + at_1) // 2
    per_token = at_2 - at_1 - 3 * per_pair
    found = Flops(
        per_text=at_1 - per_token - per_pair, per_token=per_token, per_token_pair=per_pair
    )
    assert found.of(3, 7) == cost.flops(3, 7), "FLOPs are no polynomial of the length"
    return found


def seal(
    folder: Path,
    form: RuntimeName,
    cost: Cost,
    input_names: tuple[str, ...],
    **facts: Any,
) -> Deployment:
    """Write `deploy.json` over the files that are there now.

    Args:
        facts: the other fields of `Deployment`.
    """
    names = [*MODEL_FILES[form], *(n for n in CARRIED_FILES if (folder / n).is_file())]
    libraries = ("openvino",) if form == "openvino" else ("onnx", "onnxruntime")
    deployment = Deployment(
        format=form,
        files={name: sha256_of(folder / name) for name in names},
        input_names=input_names,
        num_params=cost.num_params,
        flops=flops_formula(cost),
        made_with={name: str(require(name, "export").__version__) for name in libraries},
        **facts,
    )
    deployment.write(folder)
    return deployment
