"""Optional parts: import a library of an extra, or say in one line how to install it.

OpenVINO reports its own import and every conversion to an analytics host when `openvino_telemetry`
is installed, which comes with it. attar reports nothing: the reporter is hidden while OpenVINO is
imported, whose own fallback for an absent reporter then stays in place.
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
"""Library → the package through which it would report its use over the network."""
SILENCED = {"onnxruntime": "ORT_DISABLE_TELEMETRY"}
"""Library → the variable by which it is told not to, read when it is imported. ONNX Runtime would
also leave a device identifier in the home folder. Who sets the variable otherwise is obeyed."""
OF_TRAIN = ("torch", "transformers", "accelerate")
"""What every step that computes with a model imports at its top, and nothing that predicts does."""
_hiding = Lock()
"""What is hidden is hidden from every thread, so one at a time does it."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, which belongs to attar's optional `extra`.

    Raises:
        UsageError: the library is not installed; the message is the pip command that installs it.
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
    """Around steps and models in torch: say what to install where torch is not there.

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
    """Let the import of `module` find no reporter; other code may import the reporter afterwards.

    None in `sys.modules` is Python's documented way to make an import fail.
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
