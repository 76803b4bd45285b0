"""Verbs that read one folder and answer: an exported model, a corpus, a selection."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import Debug, Json
from attar.cli.output import print_result


def peek(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", show_default=False, help="The folder of a tokenize or a select step."
        ),
    ],
    random: Annotated[bool, typer.Option("--random", help="Drawn at random.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The highest scores.")] = False,
    worst: Annotated[bool, typer.Option("--worst", help="The lowest scores.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Of a selection: also what was not kept, and why.")
    ] = False,
    count: Annotated[int, typer.Option("-n", min=1, help="How many chunks.")] = 5,
    source: Annotated[str | None, typer.Option(help="Only chunks of this source.")] = None,
    corpus: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Of a selection: its corpus, if it was moved."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print chunks of a corpus or a selection, with their scores and why each was kept or not."""
    from attar.errors import UsageError
    from attar.selection import peek as peeking

    flags: dict[peeking.Order, bool] = {"random": random, "best": best, "worst": worst}
    asked: list[peeking.Order] = [order for order, is_asked in flags.items() if is_asked]
    if len(asked) > 1:
        raise UsageError(f"--{' and --'.join(asked)} exclude each other; give one of them")
    order: peeking.Order = asked[0] if asked else "first"
    chunks = peeking.peek(folder, order, count, source, corpus, every_fate=every)
    text = "\n\n".join(chunk.lines() for chunk in chunks) or "no chunk fits"
    print_result([chunk.as_json() for chunk in chunks], text, as_json)


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


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An exported model.")],
    repo: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Where on the hub; private if new.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Such as apache-2.0; default: the card states none.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="For everyone to see; default: private.")
    ] = False,
    upload: Annotated[
        bool, typer.Option("--upload", help="Upload; default: a dry run that shows what would go.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Publish an exported model on the Hugging Face Hub, its card with the measured figures."""
    from attar.export.push import push as push_folder

    pushed = push_folder(folder, repo, license=license, is_private=not public, is_upload=upload)
    print_result(pushed.as_json(), pushed.text(), as_json)
