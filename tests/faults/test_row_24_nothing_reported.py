"""Offline always (row 24): a deployed model that is used leaves a home folder as it was.

Both runtimes would keep an identifier there, for the reports they send by default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_recipe import TinyRun

SWITCHES = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY")
"""What would keep a runtime silent for another reason than ours."""


def _run_at_home(home: Path, command: list[str], stdin: str = "") -> None:
    home.mkdir()
    surroundings = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run(
        command,
        input=stdin,
        env=surroundings | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("step", ["deploy", "deploy_ort"])
def test_a_deployed_model_leaves_nothing_at_home(
    tiny_run: TinyRun, tmp_path: Path, step: str
) -> None:
    folder = tiny_run.folder / step
    predict = [str(Path(sys.executable).parent / "attar"), "predict", str(folder), "open a file"]
    memory = [sys.executable, "-m", "attar.evaluation.memory", str(folder), "--threads", "1"]
    snippet = [sys.executable, str(folder / "predict.py"), "open a file"]
    _run_at_home(tmp_path / "predict", predict)
    _run_at_home(tmp_path / "memory", [*memory, "--tokens", "16"], '[["open a file"]]')
    _run_at_home(tmp_path / "snippet", snippet)
    assert [str(left) for left in tmp_path.glob("*/*")] == []
