"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_debug = False


def _remember_debug(value: bool) -> bool:
    global _debug
    _debug = _debug or value
    return value


def _as_data_word(corpus: str) -> str:
    return f"corpus:{Path(corpus)}"


def wants_tracebacks() -> bool:
    return _debug


RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.toml", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder: runs/<name>.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="K=V", help="Override a setting; repeatable, TOML values."),
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the runs; default: ./runs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_remember_debug, help="Also show tracebacks of user errors."),
]
MODEL_WORDS = "A folder, a hub id, demo:minilm-l6 or demo:smollm2-135m."
Model = Annotated[str, typer.Option(metavar="MODEL", help=MODEL_WORDS)]
DATA_WORDS = "stdlib_docs, stdlib_text, glue:TASK[@FOLDER], corpus:FOLDER, or files."
Data = Annotated[str, typer.Option(metavar="DATA", help=DATA_WORDS)]
CorpusFolder = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS",
        show_default=False,
        help="The folder of a tokenize step: runs/…/tokenize.",
        callback=_as_data_word,
    ),
]

Delimiter = Annotated[
    str | None, typer.Option(help='Column separator: ";", "\\t" or any other character.')
]


def delimiter_of(written: str | None) -> str | None:
    """Parse the delimiter of a command line.

    Raises:
        UsageError: it is not a single character, or is a quotation mark or a line end.
    """
    from attar.data.config import NO_DELIMITERS
    from attar.errors import UsageError

    sign = "\t" if written == "\\t" else written
    if sign is not None and (len(sign) != 1 or sign in NO_DELIMITERS):
        raise UsageError(
            f'--delimiter must be one character, such as ";" or "\\t"; got {written!r}'
        )
    return sign
