"""Row 26: standing in a stranger's folder that holds `tokenizers.py`, nothing of it is imported.

Python puts the working directory first on the import path of `python -m` and of `python -c`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from attar.evaluation.memory import measure_memory
from deployments import Deployments
from tiny_recipe import command

TRAPS = (
    *("tokenizers", "numpy", "torch", "transformers", "safetensors", "onnxruntime", "openvino"),
    *("json", "argparse", "pathlib", "dataclasses", "subprocess", "sitecustomize", "usercustomize"),
    *("attar", "typer", "pydantic", "psutil", "pyarrow", "huggingface_hub"),
)
"""Names that some process of ours imports, from the library and from Python itself."""
STARTS_A_PROCESS = re.compile(
    r"^\s*(import|from) (subprocess|multiprocessing|pty|runpy)\b|ProcessPool|sys\.executable"
    r"|os\.(system|popen|fork|exec\w*|spawn\w*|posix_spawn\w*)\(|num_workers",
    re.MULTILINE,
)


@pytest.fixture
def strangers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: it holds a module of every name, each of which leaves a trace."""
    for name in TRAPS:
        trace = tmp_path / f"{name}.ran"
        (tmp_path / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def traces(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.ran"))


def test_the_traps_work(strangers_folder: Path) -> None:
    subprocess.run([sys.executable, "-c", "import tokenizers"], check=True)
    assert "tokenizers.ran" in traces(strangers_folder)


@pytest.mark.parametrize("form", ["onnxruntime", "openvino"])
def test_the_process_that_measures_memory_imports_nothing_from_there(
    strangers_folder: Path, deployments: Deployments, form: str
) -> None:
    folder, _ = deployments.export("int8", form)
    texts = [("open a file",)]
    found = measure_memory(folder, texts, tokens=16, batch_sizes=(1,), threads=1)
    assert found.peak_rss_mib > 0
    assert traces(strangers_folder) == []


def test_the_command_imports_nothing_from_there(
    strangers_folder: Path, deployments: Deployments
) -> None:
    folder, _ = deployments.export("int8", "onnxruntime")
    for words in (("--help",), ("predict", folder, "open a file")):
        done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert traces(strangers_folder) == []


def test_the_snippet_started_as_it_says_imports_nothing_from_its_folder(
    strangers_folder: Path, deployments: Deployments
) -> None:
    for form in ("onnxruntime", "openvino"):
        folder, _ = deployments.export("int8", form)
        assert 'python -P predict.py "' in (folder / "predict.py").read_text()
        for file in folder.iterdir():
            (strangers_folder / file.name).write_bytes(file.read_bytes())
        asked = [sys.executable, "-P", "predict.py", "open a file"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert traces(strangers_folder) == []


def test_only_the_measuring_process_is_started(repository: Path) -> None:
    """A new child process belongs here, with a test of its own above."""
    source = repository / "src" / "attar"
    starters = {
        file.relative_to(source).as_posix()
        for file in source.rglob("*.py")
        if STARTS_A_PROCESS.search(file.read_text(encoding="utf-8"))
    }
    assert starters == {"evaluation/memory.py"}
