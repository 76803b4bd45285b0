"""JavaScript reads what attar writes: ONNX Runtime from token ids, transformers.js from text.

transformers.js 4.3 cuts a text that is too long after the special tokens were put around it, and so
loses the last one: there, answers to such texts differ from those of every other reader.

The packages are installed on first use, into a folder that git ignores; without node, npm or a
registry the tests are skipped.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attar
from attar.data.tokenize import TextEncoder
from clients_asked import TEXTS, attars_scores, softmax
from deployments import MAX_LENGTH, Deployments

NODE = Path(__file__).parent / "node"
ROUNDING = 1e-5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def node() -> str:
    """The command; its packages are there."""
    command, npm = shutil.which("node"), shutil.which("npm")
    if command is None or npm is None:
        pytest.skip("node and npm are not installed")
    wanted = json.loads((NODE / "package.json").read_text())["dependencies"]
    with (NODE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed() != wanted:
            # scripts of packages are not run: onnxruntime-node's would fetch libraries for GPUs
            install = [npm, "install", "--ignore-scripts", "--no-package-lock", "--no-audit"]
            done = subprocess.run(
                [*install, "--no-fund", "--fetch-retries=1"],
                cwd=NODE,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            if installed() != wanted:
                pytest.skip(f"npm cannot install {wanted}: {done.stderr.strip()[-300:]}")
    return command


def installed() -> dict[str, str]:
    files = NODE.glob("node_modules/*/package.json"), NODE.glob("node_modules/@*/*/package.json")
    found = [json.loads(file.read_text()) for each in files for file in each]
    wanted = json.loads((NODE / "package.json").read_text())["dependencies"]
    return {each["name"]: each["version"] for each in found if each.get("name") in wanted}


def ask(node: str, script: str, question: dict[str, Any]) -> Any:
    done = subprocess.run(
        [node, str(NODE / script)],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("source", ["float", "int8"])
def test_onnx_runtime_for_node_answers_as_attar_does(
    node: str, deployments: Deployments, source: str
) -> None:
    folder = deployments.export(source, "onnxruntime")[0]
    names = attar.load(folder, threads=1).task.input_names
    encoded = TextEncoder.from_folder(folder, MAX_LENGTH, names).encode([(t,) for t in TEXTS])
    rows = [
        {name: values[0].tolist() for name, values in encoded.batch([row]).items()}
        for row in range(len(TEXTS))
    ]
    question = {"model": str(folder / "model.onnx"), "rows": rows}
    found = softmax(np.array(ask(node, "onnxruntime.mjs", question)))
    expected = [list(scores.values()) for scores in attars_scores(folder, TEXTS)]
    assert found.tolist() == [pytest.approx(row, abs=ROUNDING) for row in expected]


@pytest.mark.parametrize("source", ["float", "int8"])
def test_transformers_js_answers_texts_that_are_not_cut_as_attar_does(
    node: str, deployments: Deployments, source: str
) -> None:
    folder, _ = deployments.export(source, "onnxruntime")
    short = [text for text in TEXTS if len(text) < 40]
    question = {"folder": str(folder.parent), "name": folder.name, "texts": TEXTS}
    found = ask(node, "transformers.mjs", question)
    answers = {
        text: {each["label"]: each["score"] for each in row}
        for text, row in zip(TEXTS, found, strict=True)  # longer ones are answered too
    }
    assert len(short) > 3
    for text, scores in zip(short, attars_scores(folder, short), strict=True):
        assert answers[text] == pytest.approx(scores, abs=ROUNDING)
