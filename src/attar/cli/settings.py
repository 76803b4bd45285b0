"""Commands that describe the settings of a recipe."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from attar.cli.flags import Debug, Json
from attar.cli.output import print_result

if TYPE_CHECKING:
    from attar.recipe.describing.settings import Topic

MAX_COLUMNS = 100
"""Longer lines are hard to read, however wide the terminal is."""


def explain(
    word: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORD]",
            show_default=False,
            help="A step, method, loss, data source or setting: quantize, percentile, forward_kl, "
            "files, learning_rate. Default: list them.",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Explain the settings of a step, method, loss or data source: values, defaults, meaning."""
    from attar.recipe.describing.settings import explained, topics

    if word is None:
        listed = {name: each.meaning for name, each in topics().items()}
        print_result(listed, "\n".join(_index()), as_json)
        return
    found = explained(word)
    text = "\n\n".join("\n".join(_lines(topic)) for topic in found)
    print_result([asdict(topic) for topic in found], text, as_json)


def schema(debug: Debug = False) -> None:
    """Print the JSON schema of a recipe, with which an editor completes and checks recipes."""
    from attar.recipe.describing.json_schema import recipe_schema

    print_result(recipe_schema(), "", as_json=True)


def _index() -> Iterator[str]:
    from attar.recipe.describing.settings import topics

    for heading, group in groupby(topics().values(), key=lambda topic: topic.heading):
        yield f"{heading}:"
        for topic in group:
            yield from _paragraph(topic.meaning, f"  {topic.word:<20} ", " " * 23)
        yield ""
    yield "More: attar explain WORD"


def _lines(topic: Topic, indent: str = "") -> Iterator[str]:
    yield f"{indent}{topic.place}"
    yield from _paragraph(topic.meaning, indent)
    for setting in topic.settings:
        yield ""
        said = f"{setting.values}; {setting.default}" if setting.default else setting.values
        yield from _paragraph(said, f"{indent}  {setting.name:<18} ", f"{indent}      ")
        yield from _paragraph(setting.meaning, f"{indent}      ")
    for part in topic.parts:
        yield ""
        yield from _lines(part, indent + "  ")


def _paragraph(text: str, first: str, rest: str | None = None) -> list[str]:
    columns = min(shutil.get_terminal_size().columns, MAX_COLUMNS)
    return textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
