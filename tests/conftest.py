"""What every test shares: no network, and a modest number of threads on a small machine."""

from __future__ import annotations

import gc
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from deployments import Deployments
    from tiny_recipe import TinyRun

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Tiny tensors on two threads of a busy machine wait for each other: measured 24 s instead of 0.14 s
# for forty forward passes. Set before torch is imported; OMP_NUM_THREADS=2 brings the second back.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What tests write need not outlive a crash of the machine, and small runs mostly wait for the disk.
# That files are synced, and before what, is tested where `os.fsync` is watched.
os.fsync = lambda descriptor: None

# Shapes in the signatures of pure tensor functions are checked under pytest only.
install_import_hook("attar.losses", "beartype.beartype")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The same random numbers for a test, and for the fixtures it is the first to ask for, whatever
    ran before it."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)  # the other devices' cost a stack trace each


def pytest_collection_finish() -> None:
    """What is loaded now stays to the end: every full collection would walk all of torch again."""
    gc.collect()
    gc.freeze()


REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root: where recipes/ and README.md are."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets beside the checkout; tests that need it skip without it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder of public data sets beside the checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-block BERT classifier (2 labels) and its tokenizer. Read-only
    by agreement."""
    import tiny

    return tiny.write_tiny_bert(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="session")
def deployments(tmp_path_factory: pytest.TempPathFactory) -> Deployments:
    """A tiny model in every form: float, quantized, exported. Read-only by agreement."""
    from deployments import Deployments
    from made_once import shared_folder

    return Deployments(shared_folder(tmp_path_factory, "deployments"))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A whole tiny recipe, run once by the real command. Read-only by agreement."""
    import tiny_recipe
    from made_once import shared_folder

    return tiny_recipe.run_once(shared_folder(tmp_path_factory, "tiny_run"))
