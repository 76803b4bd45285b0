"""Output of the command line: results on stdout, tracebacks on stderr."""

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
    """Print the summary of a run, then fail if a gate is missed."""
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
        # The reader has closed the pipe (`| head`): drop the rest and keep the exit code of the
        # work. The descriptor itself is redirected, otherwise Python would fail when flushing at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def escape_what_the_terminal_cannot_show() -> None:
    """In a locale without UTF-8, write characters such as arrows as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_traceback() -> None:
    """Print the traceback of the current exception."""
    lines = traceback.format_exc().splitlines()
    print("\n".join(map(for_terminal, lines)), file=sys.stderr)
