"""Library versions for an artifact, found without importing the libraries."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

LIBRARIES = ("torch", "transformers", "accelerate", "numpy", "openvino", "onnxruntime", "onnx")
"""Libraries whose version can change the result of a step."""


@cache
def versions() -> dict[str, str]:
    """Versions of attar, Python and the installed libraries; cached for all steps."""
    from attar import __version__

    found = {"attar": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
