"""Optional parts: import a library of an extra, or say in one line how to install it."""

from __future__ import annotations

import importlib
from types import ModuleType

from attar.errors import UsageError


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, which belongs to attar's optional `extra`.

    Raises:
        UsageError: the library is not installed; the message is the pip command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{module!r} is not installed (or not importable: {error}); "
            f"it comes with the extra {extra!r}: pip install 'attar[{extra}]'"
        ) from error
