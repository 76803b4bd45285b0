"""Imports libraries of optional extras, with a one-line install hint if they are missing.

OpenVINO reports its import and every conversion to an analytics host if `openvino_telemetry` is
installed, which is one of its dependencies. attar disables this: the telemetry package is hidden
while OpenVINO is imported, so that OpenVINO uses its fallback for a missing package.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import ModuleType

from attar.errors import UsageError

REPORTERS = {"openvino": "openvino_telemetry"}
"""Library → package that reports its use over the network."""
SILENCED = {"onnxruntime": "ORT_DISABLE_TELEMETRY"}
"""Library → environment variable that disables its telemetry, read at import. ONNX Runtime would
also write a device identifier to the home folder. A value set by the user is kept."""
OF_TRAIN = ("torch", "transformers", "accelerate")
"""Libraries that every step that runs a model imports; prediction does not need them."""
_hiding = Lock()
"""Hiding a package affects all threads, so only one may do it at a time."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module` of attar's optional `extra`.

    Raises:
        UsageError: the library is not installed; the message has the pip command to install it.
    """
    if module in SILENCED:
        os.environ.setdefault(SILENCED[module], "1")
    try:
        with _without_reporter(module):
            return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{module!r} is not installed (or not importable: {error}); "
            f"it comes with the extra {extra!r}: pip install 'attar[{extra}]'"
        ) from error


@contextmanager
def training_explained() -> Iterator[None]:
    """Context manager for code that needs torch: explains what to install if it is missing.

    Raises:
        UsageError: a library of the extra `train` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in OF_TRAIN:
            raise
        raise UsageError(
            f"{library!r} is not installed, and every step that computes with a model needs it: "
            "pip install 'attar[train]' (predicting with an OpenVINO or ONNX Runtime export does "
            "not)"
        ) from error


@contextmanager
def _without_reporter(module: str) -> Iterator[None]:
    """Hide the telemetry package during the import of `module`; other code can import it later.

    None in `sys.modules` is the documented way to make an import fail.
    """
    reporter = REPORTERS.get(module)
    if reporter is None or module in sys.modules:
        yield
        return
    with _hiding:
        hidden = {name: sys.modules[name] for name in (reporter,) if name in sys.modules}
        sys.modules[reporter] = None  # pyright: ignore[reportArgumentType]
        try:
            yield
        finally:
            del sys.modules[reporter]
            sys.modules.update(hidden)
