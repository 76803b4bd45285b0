"""What answers at once must not load torch: a fresh interpreter runs the command and looks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import attar

HEAVY = ("torch", "transformers", "accelerate", "openvino", "onnxruntime", "numpy", "pyarrow")
RUN_AND_LOOK = """
import sys
sys.argv = ["attar", *sys.argv[1:]]
from attar.cli import main
try:
    main()
except SystemExit as exit:
    assert not exit.code, f"exit code {exit.code}"
heavy = [name for name in %r if name in sys.modules]
assert not heavy, f"loaded {heavy}"
"""


def _look(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_import_attar_loads_nothing_heavy() -> None:
    code = f"import attar, sys; assert not [m for m in {HEAVY!r} if m in sys.modules]"
    found = _look(code)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["--version"], ["run", "--help"], ["check", "RECIPE"]),
        *(["explain", "quantize"], ["schema"]),
    ],
)
def test_quick_commands_load_nothing_heavy(repository: Path, arguments: list[str]) -> None:
    recipe = str(repository / "recipes" / "demo.toml")
    filled = [recipe if word == "RECIPE" else word for word in arguments]
    found = _look(RUN_AND_LOOK % (HEAVY,), *filled)
    assert found.returncode == 0, found.stderr + found.stdout
    assert found.stdout


def test_looking_at_data_loads_no_torch(tmp_path: Path) -> None:
    rows = [f"a film of number {i},{('good', 'bad')[i % 2]}" for i in range(60)]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *rows]))
    recipe = str(tmp_path / "films.toml")
    new = ["new", str(tmp_path / "films.csv"), "--output", recipe, "--model", "owner/on-the-hub"]
    for words in (new, ["check", recipe]):
        found = _look(RUN_AND_LOOK % (("torch", "transformers", "pyarrow"),), *words)
        assert found.returncode == 0, found.stderr + found.stdout
        assert "data 'films'" in found.stdout


@pytest.mark.parametrize("module", ["attar", "attar.cli"])
def test_the_command_runs_as_a_module_too(module: str) -> None:
    command = [sys.executable, "-m", module]
    found = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, f"attar {attar.__version__}\n")
    wrong = subprocess.run([*command, "nonsense"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "No such command 'nonsense'" in wrong.stderr


def test_the_probe_would_notice_numpy() -> None:
    code = f"import numpy, sys; assert not [m for m in {HEAVY!r} if m in sys.modules]"
    assert _look(code).returncode != 0
