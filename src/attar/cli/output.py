"""What the command line prints: results on stdout, tracebacks on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from attar.escaping import for_terminal

if TYPE_CHECKING:
    from attar.recipe.outcome.summary import RunSummary


def conclude(summary: RunSummary, as_json: bool) -> None:
    """Print what became of a run first, and only then fail for a gate it missed."""
    print_result(summary.as_json(), summary.text(), as_json)
    summary.require_gates()


def print_result(plain: Any, text: str, as_json: bool, one_line: bool = False) -> None:
    if as_json:
        is_utf_8 = str(sys.stdout.encoding).lower().replace("-", "") == "utf8"
        words = json.dumps(plain, ensure_ascii=not is_utf_8, indent=None if one_line else 2)
        text = "\n".join(for_terminal(line, most=None) for line in words.split("\n"))
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader has gone (`| head`): the rest has nowhere to go, and the exit code stays that
        # of the work. The descriptor itself is turned, or Python would fail when it flushes at
        # its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def escape_what_the_terminal_cannot_show() -> None:
    """In a locale without UTF-8 an arrow is written as its escape, and is not a reason to fail
    after an hour's work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_traceback() -> None:
    """That of the exception being handled."""
    lines = traceback.format_exc().splitlines()
    print("\n".join(map(for_terminal, lines)), file=sys.stderr)
