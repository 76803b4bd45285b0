"""Row 13: a model that brings its own Python code. It is refused, and the code never runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attar.errors import ModelError
from attar.models.load import load_model
from attar.models.sources.references import model_fingerprint


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> Path:
    copied = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    (copied / "modeling_own.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'the-code-ran')!r}).touch()\n"
    )
    config = json.loads((copied / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_own.OwnModel"}
    (copied / "config.json").write_text(json.dumps(config))
    return copied


def test_it_is_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modeling_own\.OwnModel.*own Python code, .* never runs"):
        load_model(folder)
    assert not (tmp_path / "the-code-ran").exists()


def test_it_is_refused_before_any_step_runs(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="own Python code"):
        model_fingerprint(str(folder), tmp_path)


def test_code_that_nothing_names_is_left_alone(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    load_model(folder)
    assert not (tmp_path / "the-code-ran").exists()


def test_no_compiled_code_is_fetched_from_the_hub() -> None:
    """What attar says before transformers is loaded, and what transformers makes of it."""
    from transformers.integrations import hub_kernels  # attar is loaded already

    environment = {n: v for n, v in os.environ.items() if n != "USE_HUB_KERNELS"}
    command = [sys.executable, "-c", "import os, attar; print(os.environ['USE_HUB_KERNELS'])"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() not in hub_kernels.ENV_VARS_TRUE_VALUES
    read = os.environ["USE_HUB_KERNELS"].upper()
    assert read == hub_kernels._TRANSFORMERS_USE_HUB_KERNELS
    assert hub_kernels._kernels_enabled == (read in hub_kernels.ENV_VARS_TRUE_VALUES)
