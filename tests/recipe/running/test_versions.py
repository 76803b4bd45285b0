"""What made an artifact is told without importing it."""

from __future__ import annotations

import platform
import subprocess
import sys

from attar import __version__
from attar.recipe.running.versions import versions


def test_versions_are_those_of_the_installed_distributions() -> None:
    import torch

    found = versions()
    assert found["attar"] == __version__
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"].partition("+")[0])


def test_asking_imports_no_torch() -> None:
    ask = "from attar.recipe.running.versions import versions; versions()"
    code = f"{ask}; import sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
