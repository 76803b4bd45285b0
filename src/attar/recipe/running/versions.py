"""Which versions made an artifact, asked without importing anything heavy."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

LIBRARIES = ("torch", "transformers", "accelerate", "numpy", "openvino", "onnxruntime", "onnx")
"""Those whose version can change what a step computes."""


@cache
def versions() -> dict[str, str]:
    """attar, Python and the libraries that are installed; every step of a run asks."""
    from attar import __version__

    found = {"attar": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
