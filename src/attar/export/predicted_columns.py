"""Selects the columns of a table that `attar predict --input` reads and keeps. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attar.data.gold import GOLD, PLAIN_PAIRS, PLAIN_TEXT
from attar.data.look.form import DELIMITERS
from attar.data.reading.locate import format_of
from attar.errors import UsageError
from attar.export.deployed import Deployed


def text_columns(
    model: Deployed, source: Path, text: tuple[str, ...], names: tuple[str, ...]
) -> tuple[str, ...]:
    """The columns that the model reads."""
    reads = 2 if model.task.kind.asks else model.task.num_texts
    if text:
        require_columns(source, text, names, "--text")
        if reads is not None and len(text) != reads:
            wants = "two columns: --text A --text B" if reads == 2 else "one column: --text A"
            raise UsageError(f"the model in {model.folder} reads {wants}; got {', '.join(text)}")
        return text
    gold = GOLD[model.task.kind.gold]
    usual = gold.pairs or PLAIN_PAIRS if reads == 2 else [(name,) for name in PLAIN_TEXT]
    found = [columns for columns in usual if all(name in names for name in columns)]
    if len(found) != 1:
        raise UsageError(
            f"cannot guess the text column of {source}; its columns are "
            f"{', '.join(map(repr, names)) or 'none'}; name it with --text"
            + (", once for each text of a pair" if reads == 2 else "")
            + _advice_on_delimiter(names)
        )
    return found[0]


def nested_columns_of(source: Path) -> list[str]:
    """Columns of a Parquet file that hold lists or objects."""
    if format_of(source) != ".parquet":
        return []
    from attar.data.reading.parquet import (
        nested_columns,
    )  # imports Arrow, which other formats do not need

    return nested_columns(source)


def require_columns(source: Path, wanted: Sequence[str], names: Sequence[str], option: str) -> None:
    """Raise UsageError if wanted columns are missing."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UsageError(
            f"{source} has no column {', '.join(map(repr, missing))} ({option}); its columns are "
            f"{', '.join(map(repr, names)) or 'none'}{_advice_on_delimiter(names)}"
        )


def _advice_on_delimiter(names: Sequence[str]) -> str:
    """Advice if the name of the only column contains another delimiter."""
    sign = next((sign for sign in DELIMITERS if len(names) == 1 and sign in names[0]), None)
    return f"; if {sign!r} separates them: --delimiter {sign!r}" if sign else ""


def refuse_clashes(columns: Sequence[str], target: Path, answers: Sequence[str]) -> None:
    """Raise UsageError if input columns have names that the output uses."""
    clashes = [name for name in answers if name in columns]
    if clashes:
        raise UsageError(
            f"the input has a column {', '.join(map(repr, clashes))}, which {target.name} needs "
            "for the answers; rename it, or name the columns to keep with --keep"
        )
