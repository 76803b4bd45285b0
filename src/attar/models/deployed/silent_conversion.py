"""Run OpenVINO's converter without telemetry.

The converter reports each use and writes an identifier into the home folder. The reporter is a name
in three of its modules, and OpenVINO includes a stub for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

CONVERTER = "openvino.tools.ovc"
REPORTING = ("convert_impl", "telemetry_utils", "utils")
"""Modules of the converter that have the reporter under the name `tm`."""


@contextmanager
def nothing_reported() -> Iterator[None]:
    """Replace the reporter by OpenVINO's stub in every module that a conversion reports from.

    Raises:
        AttributeError: this OpenVINO reports in another way, so telemetry cannot be disabled.
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
