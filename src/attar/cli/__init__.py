"""The command line: each verb imports its work only when it is called.

stdout carries the result (`--json` for machines), stderr the progress and the errors. A user's
mistake is one message and an exit code of the contract; a bug of ours is exit code 1 with the
traceback kept. Nothing heavy is imported at the top: `attar --help` must answer at once.

    starting     a recipe from a file of texts
    runs         verbs of a recipe and of its run folder
    steps        one step without a recipe
    artifacts    verbs that read one folder and answer
    settings     what a recipe may contain
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from attar import __version__
from attar.cli.artifacts import peek, predict, push
from attar.cli.flags import wants_tracebacks
from attar.cli.output import escape_what_the_terminal_cannot_show, print_traceback
from attar.cli.runs import check, plan, report, resume, run, status
from attar.cli.settings import explain, schema
from attar.cli.starting import new
from attar.cli.steps import (
    analyze,
    evaluate,
    export,
    generate,
    quantize,
    score,
    select,
    tokenize,
    train,
)
from attar.errors import AttarError, StoppedError
from attar.escaping import for_terminal

BUG_EXIT_CODE = 1
INTERRUPTED = {130: "interrupted", StoppedError.exit_code: "stopped by SIGTERM"}
"""Exit code → how it came about; 130 is what typer makes of a KeyboardInterrupt."""
VERBS: tuple[Callable[..., None], ...] = (
    *(new, check, plan, run, status, resume, predict),
    *(explain, schema, push),
    *(tokenize, score, select, generate, peek),
    *(train, analyze, quantize, export, evaluate, report),
)
"""In the order of `attar --help`."""


def _print_version(value: bool) -> None:
    if value:
        print(f"attar {__version__}")
        raise typer.Exit


def _attar(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def _app(verbs: Sequence[Callable[..., None]] = VERBS) -> typer.Typer:
    app = typer.Typer(
        help="Make small language models out of big ones, and prove what they are worth.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_attar)
    for verb in verbs:
        app.command()(verb)
    return app


app = _app()
"""Of all verbs."""


def _terminated(_number: int, _frame: object) -> None:
    raise SystemExit(StoppedError.exit_code)


def main() -> None:
    """The `attar` command: run a verb, and turn what it raises into a message and an exit code."""
    escape_what_the_terminal_cannot_show()
    if threading.current_thread() is threading.main_thread():
        # for the seconds in which a verb imports its work; a run then catches signals itself
        signal.signal(signal.SIGTERM, _terminated)
    asked = [verb for verb in VERBS if [verb.__name__] == sys.argv[1:2]]
    try:
        _app(asked or VERBS)()  # typer reads the signature of every verb it is given
    except AttarError as error:
        if wants_tracebacks():
            print_traceback()
        print("error: " + "\n".join(map(for_terminal, error.lines)), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except SystemExit as end:
        if end.code in INTERRUPTED:
            print(
                f"{INTERRUPTED[end.code]}; finished steps are intact: run the same command to "
                "continue",
                file=sys.stderr,
            )
        raise
    except Exception as bug:
        print_traceback()
        print(
            f"\nerror: this is a bug in attar, not your mistake ({type(bug).__name__}); "
            "please report it with the lines above",
            file=sys.stderr,
        )
        raise SystemExit(BUG_EXIT_CODE) from None
