"""Optional parts."""

from __future__ import annotations

import json

import pytest

from attar.errors import UsageError
from attar.extras import require


def test_an_installed_library_is_imported() -> None:
    assert require("json", "eval") is json


def test_a_missing_library_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(UsageError, match=r"pip install 'attar\[export\]'"):
        require("no_such_library", "export")
