"""Verbs that read one folder and answer: an exported model, a corpus, a selection."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import Debug, Json
from attar.cli.output import print_result


def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An exported model.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="None: one a line from stdin. For a model of pairs, a tab separates the two.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer with label, probability and milliseconds."""
    from attar.export.asked import lines_of_stdin, rows_of, texts_of_arguments
    from attar.export.deployed import Deployed

    lines = texts_of_arguments(texts) if texts else lines_of_stdin()
    model = Deployed(folder, threads=threads)
    answers = model.predict(rows_of(lines, model.task.num_texts))
    for line, prediction in zip(lines, answers, strict=True):
        answer = {"text": line, **prediction.as_json()}
        print_result(answer, prediction.text(), as_json, one_line=True)
    if cut := sum(answer.is_cut for answer in answers):
        print(
            f"warning: {cut} of {len(answers)} texts have more than {model.task.max_length} tokens "
            "and were cut",
            file=sys.stderr,
        )
