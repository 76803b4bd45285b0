"""`attar new`: from a file to a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import MODEL_WORDS, Debug, Delimiter, Json, delimiter_of
from attar.cli.output import print_result


def new(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help=(
                "A .csv, .tsv, .jsonl, .parquet or .txt file, or a folder with one file per split."
            ),
        ),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The text column; give it twice for pairs of texts."),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="NAME", help="The label column.")] = None,
    delimiter: Delimiter = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether the first line names the columns."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="classes, numbers, pairs, running_text or unlabelled."),
    ] = None,
    size: Annotated[str, typer.Option(help="quick, good or best.")] = "quick",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help=f"Model to fine-tune; default: demo:minilm-l6. {MODEL_WORDS}"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE.toml",
            help="Recipe file; default: named after the data, in this folder.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Inspect your data and write a first recipe for it."""
    from attar.data.look.form import TASKS, TaskName, Wishes
    from attar.errors import UsageError
    from attar.progress import Progress
    from attar.recipe.starting.start import new_recipe

    by_word: dict[str, TaskName] = {name: name for name in TASKS}
    wished = by_word.get(task or "")
    if task is not None and wished is None:
        raise UsageError(f"no task {task!r}; choose one of {', '.join(TASKS)}")
    wishes = Wishes(tuple(text or ()), label, delimiter_of(delimiter), header, wished)
    options = {"size": size, "model": model, "output": output, "force": force}
    made = new_recipe(data, wishes, **options, say=Progress().say)
    print_result(made.as_json(), made.text(), as_json)
