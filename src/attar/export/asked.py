"""Inputs of `attar predict`: texts from its arguments, or from stdin, one per line.

The command must give the same results as `Deployed.predict` in Python. So texts are UTF-8 whatever
the locale, none is skipped, and a tab separates two texts only if the model reads pairs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from attar.errors import UsageError


def texts_of_arguments(arguments: Sequence[str]) -> list[str]:
    """Decode arguments as UTF-8; in a locale such as C, Python decodes them as ASCII.

    Raises:
        UsageError: an argument is not valid UTF-8.
    """
    texts = []
    for number, argument in enumerate(arguments, start=1):
        try:
            texts.append(os.fsencode(argument).decode())
        except UnicodeError:
            raise UsageError(
                f"text {number} of {len(arguments)} is not UTF-8: {argument!a}; write it in UTF-8"
            ) from None
    return texts


def lines_of_stdin() -> list[str]:
    """The lines of stdin. Empty lines are texts too, so that there is one answer per line.

    Raises:
        UsageError: stdin is a terminal, is empty, or is not valid UTF-8.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError('predict has no text: attar predict DIR "some text", or pipe lines to it')
    content = sys.stdin.buffer.read()
    try:
        # Only \n ends a line: texts may contain the other separators that splitlines() uses.
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(
            f"stdin, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; pipe UTF-8 text"
        ) from None
    if lines == [""] and b"\n" not in content:
        raise UsageError("predict got an empty stdin; pipe one text per line to it")
    return lines


def paired(texts: Sequence[str]) -> list[str]:
    """Convert the arguments for a model of pairs to lines. Without a tab, every two arguments are a
    pair, as for `predict.py`.

    Example:
        >>> paired(["a", "b"]), paired(["a\\tb", "c\\td"])
        (['a\\tb'], ['a\\tb', 'c\\td'])
    """
    if any("\t" in text for text in texts) or len(texts) % 2:
        return list(texts)
    return ["\t".join(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]


def rows_of(lines: Sequence[str], num_texts: int | None) -> list[str | tuple[str, str]]:
    """Convert lines to texts or pairs. A tab separates a pair only if the model reads pairs.

    Raises:
        UsageError: a pair does not have exactly one tab; or a line has a tab, and the folder does
            not say what the model reads.
    """
    rows: list[str | tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        parts = line.split("\t")
        if num_texts is None and len(parts) > 1:
            raise UsageError(
                f"text {number} of {len(lines)} has a tab, and this folder, written by an older "
                "attar, does not say whether its model reads pairs; export the model again"
            )
        if num_texts == 2 and len(parts) != 2:
            raise UsageError(
                f"text {number} of {len(lines)} has {len(parts) - 1} tabs, and this model reads "
                "pairs: write the first text, a tab, the second text"
            )
        rows.append((parts[0], parts[1]) if num_texts == 2 else line)
    return rows
