"""attar without its extra `train`: it predicts, checks and reports, and a step that computes with a
model is one message. torch, transformers and accelerate are made impossible to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_recipe import TinyRun

BLOCKED = """
import json, sys
for library in ("torch", "transformers", "accelerate"):
    sys.modules[library] = None
from attar.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["attar", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def without_torch(*commands: list[object]) -> subprocess.CompletedProcess[str]:
    """Commands in one process, up to the first that fails."""
    given = json.dumps([[str(word) for word in words] for words in commands])
    command = [sys.executable, "-c", BLOCKED, given]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("step", ["deploy", "deploy_ort"])
def test_an_exported_model_predicts(tiny_run: TinyRun, step: str) -> None:
    found = without_torch(["predict", tiny_run.folder / step, "a good film", "--json"])
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["label"]


def test_what_reads_a_recipe_or_a_run_works(tiny_run: TinyRun) -> None:
    found = without_torch(
        ["check", tiny_run.recipe],
        ["explain", "train"],
        ["status", tiny_run.folder],
        ["report", tiny_run.folder],
    )
    assert found.returncode == 0, found.stderr
    assert "index.html" in found.stdout.splitlines()[-1], "the last has run too"


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_step_that_needs_torch_says_what_to_install(
    tiny_run: TinyRun, tmp_path: Path, verb: str
) -> None:
    found = without_torch([verb, tiny_run.recipe, "--out", tmp_path])
    assert found.returncode == 2
    assert "pip install 'attar[train]'" in found.stderr
    assert found.stderr.count("error:") == 1
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.rglob("crash.txt"))
