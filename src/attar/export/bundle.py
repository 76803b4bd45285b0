"""Files that are exported with a model, so that its folder can be used without attar.

In addition to the graph and weights: the tokenizer as one file, with the task's truncation; the
task; the config (for people and other tools); `deploy.json` with the hashes of the files; and
`predict.py`, which needs only the runtime, tokenizers and numpy (except for packed integers, which
only attar can read).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attar.artifacts import disk_errors_explained, sha256_of, write_text
from attar.errors import ArtifactError
from attar.export.model_card import install_command
from attar.models.cost import Cost
from attar.models.deployed.runtimes import MODEL_FILES, Deployment, Flops, RuntimeName
from attar.models.sources.safe_files import CONFIG_FILE
from attar.special_tokens import write_tokenizer
from attar.tasks.task import TASK_FILE, Task
from attar.transformers_tokenizer import SETTINGS_FILE, TOKENIZER_FILE

CARRIED_FILES = (TOKENIZER_FILE, CONFIG_FILE, SETTINGS_FILE, TASK_FILE)
"""Files besides the graph that predictions depend on; their hashes are in deploy.json."""

MADE_WITH = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "safetensors": ("torch", "transformers", "safetensors"),
}
"""Format → libraries whose versions are recorded, because they may affect reading the files."""

FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Model input → attribute of an encoding of the tokenizers library."""

RUN = {
    "openvino": (
        "sys.modules['openvino_telemetry'] = None  # or OpenVINO reports its use over the network",
        "import openvino as ov",
        # without the hint, some CPUs round floats to bf16
        "model = ov.compile_model(here / 'openvino_model.xml', 'CPU', "
        "{'INFERENCE_PRECISION_HINT': 'f32'})",
        "logits = model(inputs)[0][0]",
    ),
    "onnxruntime": (
        "os.environ['ORT_DISABLE_TELEMETRY'] = '1'  # or it reports its use over the network",
        "import onnxruntime",
        "model = onnxruntime.InferenceSession(here / 'model.onnx')",
        "logits = model.run(None, inputs)[0][0]",
    ),
}
"""Code that computes `logits` from `inputs`."""
VECTORS_WITH_ATTAR = ("print(model.embed(texts, side='query')[0].tolist())",)
WITH_ATTAR = ("answer = model.{verb}([tuple(texts) if len(texts) == 2 else texts[0]])[0]",)
"""The rest of the file if torch is the runtime, where attar unpacks the weights. {verb} and the
printing of an answer depend on the task."""


def write_bundle(model_folder: Path, folder: Path, task: Task) -> None:
    """Write the files that the model needs besides its graph.

    The tokenizer is written as transformers reads it, without padding and with the task's
    truncation, so that the `tokenizers` library alone encodes texts as the model expects.

    Raises:
        ArtifactError: a file is missing in the model folder.
    """
    for name in (TOKENIZER_FILE, CONFIG_FILE):
        if not (model_folder / name).is_file():
            raise ArtifactError(
                f"{model_folder} has no {name}, which an exported model needs; train or quantize "
                "the model again"
            )
    with disk_errors_explained(folder):
        write_tokenizer(model_folder, folder, task.max_length, task.input_names)
        shutil.copyfile(model_folder / CONFIG_FILE, folder / CONFIG_FILE)
        task.write(folder)


def write_snippet(folder: Path, form: RuntimeName, task: Task) -> None:
    """Write `predict.py`, which prints the answer for the texts of one row on the command line."""
    is_pair = task.num_texts == 2
    asked = '"a text" "its second part"' if is_pair else '"a text"'
    usage = f"# usage: python -P predict.py {asked}"
    texts = (
        "texts = [os.fsencode(text).decode() for text in sys.argv[1:]]  # UTF-8 in any locale",
        *(("texts = texts[0].split('\\t') if len(texts) == 1 else texts",) if is_pair else ()),
        f"if len(texts) != {task.num_texts or 1}:",
        f"    sys.exit('usage: python -P predict.py {asked}')",
    )
    if form == "safetensors":
        answer = (*WITH_ATTAR, *task.shown.with_attar)
        answer = VECTORS_WITH_ATTAR if task.kind.embeds else answer
        opened = ("import attar.errors", "model = attar.load(pathlib.Path(__file__).parent)")
        refused = ("except attar.errors.AttarError as error:", "    sys.exit(str(error))")
        lines = (usage, "import os, pathlib, sys", *texts, *_or_named(form, opened), *refused)
        text = "\n".join((*lines, *answer)).replace("{verb}", task.shown.verb)
        write_text(folder / "predict.py", text + "\n")
        return
    parts = ", ".join(f"[row.{FIELDS[name]}]" for name in task.input_names)
    runtime = RUN[form]
    before = ("import ", "sys.modules", "os.environ")
    imports = [line for line in runtime if any(word in line for word in before)]
    prefixed = ("texts[0] = task['embedding']['query_prefix'] + texts[0]",) * task.kind.embeds
    lines = (
        usage,
        "import json, os, pathlib, sys",
        *texts,
        *_or_named(form, ("import numpy as np, tokenizers", *imports)),
        "here = pathlib.Path(__file__).parent",
        "task = json.loads((here / 'task.json').read_text(encoding='utf-8'))",
        *prefixed,
        "row = tokenizers.Tokenizer.from_file(str(here / 'tokenizer.json')).encode(*texts)",
        f"inputs = dict(zip(task['input_names'], np.array([{parts}])))",
        *runtime[len(imports) :],
        *task.shown.snippet,
        "if row.overflowing:",
        "    print(f\"cut at {task['max_length']} tokens\", file=sys.stderr)",
    )
    write_text(folder / "predict.py", "\n".join(lines) + "\n")


def _or_named(form: RuntimeName, lines: Sequence[str]) -> tuple[str, ...]:
    """Lines that import packages; if one is missing, its name and the command that installs those
    of this export."""
    return (
        "try:",
        *(f"    {line}" for line in lines),
        "except ModuleNotFoundError as error:",
        f"    command = '{install_command(form)}'",
        "    sys.exit(f'{error.name} is not installed. Run: {command}')",
    )


def flops_formula(cost: Cost) -> Flops:
    """The exact polynomial for the FLOPs of a forward pass.

    Every counted operation is constant per batch or proportional to texts, tokens, or pairs of
    tokens, so four values determine the polynomial and a fifth verifies it.
    """
    once = 2 * cost.flops(1, 1) - cost.flops(2, 1)
    at_1, at_2, at_3 = (cost.flops(1, tokens) for tokens in (1, 2, 3))
    per_pair = (at_3 - 2 * at_2 + at_1) // 2
    per_token = at_2 - at_1 - 3 * per_pair
    found = Flops(
        per_text=at_1 - once - per_token - per_pair,
        per_token=per_token,
        per_token_pair=per_pair,
        per_batch=once,
    )
    assert found.of(3, 7) == cost.flops(3, 7), "FLOPs are not a polynomial of the length"
    return found


def seal(
    folder: Path,
    form: RuntimeName,
    cost: Cost,
    input_names: tuple[str, ...],
    **facts: Any,
) -> Deployment:
    """Write `deploy.json`, with hashes of the current files.

    Args:
        facts: the other fields of `Deployment`.
    """
    names = [*MODEL_FILES[form], *(n for n in CARRIED_FILES if (folder / n).is_file())]
    deployment = Deployment(
        format=form,
        files={name: sha256_of(folder / name) for name in names},
        input_names=input_names,
        num_params=cost.num_params,
        flops=flops_formula(cost),
        made_with={name: version(name) for name in MADE_WITH[form]},
        **facts,
    )
    deployment.write(folder)
    return deployment
