"""attar makes small language models out of big ones, and measures their quality and speed.

    import attar
    attar.run("recipe.toml")
    attar.load("runs/demo/deploy").predict(["How do I open a socket?"])

Nothing heavy is imported until one of these functions is called.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attar.export.deployed import Deployed
    from attar.recipe.run import RunSummary

# transformers would fetch compiled code from the hub for some families (Mamba), if the package
# `kernels` is installed; it reads this once, when it is imported
os.environ.setdefault("USE_HUB_KERNELS", "NO")

__version__ = "0.1.0"
__all__ = ["__version__", "load", "run"]


def run(recipe: str | Path, **settings: Any) -> RunSummary:
    """Run a recipe file. See `attar.recipe.run.run_recipe` for the parameters."""
    from attar.recipe.run import run_recipe

    return run_recipe(Path(recipe), **settings)


def load(folder: str | Path, **settings: Any) -> Deployed:
    """Open an exported model. See `attar.export.opened` for the methods of each type of task."""
    from attar.export.opened import open_exported

    return open_exported(folder, **settings)
