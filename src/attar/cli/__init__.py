"""The command line. Each command imports its implementation only when it is called.

Results go to stdout (`--json` for machines), progress and errors to stderr. A user error is one
message and an exit code of the contract; a bug is exit code 1, with the traceback saved. Nothing
heavy is imported at the top, so that `attar --help` is fast.

    starting     a recipe from a file of texts
    runs         commands for a recipe and its run folder
    steps        one step without a recipe
    artifacts    commands that read one folder and print results
    settings     the settings of a recipe
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
"""Exit code → reason; typer uses 130 for a KeyboardInterrupt."""
VERBS: tuple[Callable[..., None], ...] = (
    *(new, check, plan, run, status, resume, predict),
    *(explain, schema, push),
    *(tokenize, score, select, generate, peek),
    *(train, analyze, quantize, export, evaluate, report),
)
"""Commands in the order of `attar --help`."""


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
"""The app with all commands."""


def _terminated(_number: int, _frame: object) -> None:
    raise SystemExit(StoppedError.exit_code)


def main() -> None:
    """The `attar` command: runs a command, converts exceptions to a message and an exit code."""
    escape_what_the_terminal_cannot_show()
    if threading.current_thread() is threading.main_thread():
        # for the seconds in which a command imports its code; a run then handles signals itself
        signal.signal(signal.SIGTERM, _terminated)
    asked = [verb for verb in VERBS if [verb.__name__] == sys.argv[1:2]]
    try:
        _app(asked or VERBS)()  # typer inspects the signature of every command
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
