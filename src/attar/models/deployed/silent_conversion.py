"""OpenVINO converts a model without reporting it.

Its converter sends a report of each use and writes an identifier into the home folder. The reporter
is a name in three of its modules, and a stand-in comes with OpenVINO.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

CONVERTER = "openvino.tools.ovc"
REPORTING = ("convert_impl", "telemetry_utils", "utils")
"""Modules of the converter that hold the reporter under the name `tm`."""


@contextmanager
def nothing_reported() -> Iterator[None]:
    """OpenVINO's stand-in for an absent reporter in every module that a conversion reports from.

    Raises:
        AttributeError: this OpenVINO reports in another way, so silence cannot be promised.
    """
    stub = importlib.import_module(f"{CONVERTER}.telemetry_stub")
    modules = [importlib.import_module(f"{CONVERTER}.{name}") for name in REPORTING]
    reporters = [module.tm for module in modules]
    try:
        for module in modules:
            setattr(module, "tm", stub)  # noqa: B010 - no attribute a type checker knows of
        yield
    finally:
        for module, reporter in zip(modules, reporters, strict=True):
            setattr(module, "tm", reporter)  # noqa: B010
