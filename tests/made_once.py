"""What several processes of tests read, made by the first that asks for it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all processes of this run of the tests have in common."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made_once(folder: Path, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, by way of JSON; others wait meanwhile.

    Args:
        name: a file's, other than those that `make` writes.
    """
    file = folder / f"{name}.made.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_text(json.dumps(make()))
    return json.loads(file.read_text())
