"""Commands that read one folder: an exported model, a corpus, a selection."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attar.cli.flags import Debug, Delimiter, Json, Quiet, delimiter_of
from attar.cli.output import print_result

if TYPE_CHECKING:
    from attar.export.predicted_files import Form


def peek(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", show_default=False, help="The folder of a tokenize or a select step."
        ),
    ],
    random: Annotated[bool, typer.Option("--random", help="Random chunks.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Those with the highest scores.")] = False,
    worst: Annotated[bool, typer.Option("--worst", help="Those with the lowest scores.")] = False,
    every: Annotated[
        bool,
        typer.Option("--all", help="Of a selection: also the rejected chunks, with the reason."),
    ] = False,
    count: Annotated[int, typer.Option("-n", min=1, help="Number of chunks.")] = 5,
    source: Annotated[str | None, typer.Option(help="Only chunks of this source.")] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Of a selection: the folder of its corpus, if it was moved."
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print chunks of a corpus or a selection, with scores and why each was kept or rejected."""
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
            help=(
                "Default: one text per line from stdin. For a model of pairs: two arguments, or "
                "lines with a tab between the two texts."
            ),
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="A .csv, .tsv, .jsonl, .parquet or .txt file."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .csv, .tsv, .jsonl, .parquet or .npy file."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="The input's text column; give it twice for a model of pairs."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="Input column to copy to the output; default: all."),
    ] = None,
    side: Annotated[
        str | None,
        typer.Option(help="For an embedding model with --input: query (default) or passage."),
    ] = None,
    delimiter: Delimiter = None,
    header: Annotated[
        bool,
        typer.Option(
            "--header/--no-header", help="Whether the input's first line names its columns."
        ),
    ] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict for texts, or for the rows of a file, with an exported model."""
    from attar.export.opened import open_exported

    if source or target or text or keep or side or delimiter is not None or not header:
        from attar.export.predicted_files import Form

        form = Form(delimiter_of(delimiter), header)
        _predict_file(
            folder, source, target, texts, text, keep, side, form, threads, as_json, quiet
        )
        return
    from attar.export.asked import lines_of_stdin, paired, rows_of, texts_of_arguments

    lines = texts_of_arguments(texts) if texts else lines_of_stdin()
    model = open_exported(folder, threads=threads)
    if texts and model.task.num_texts == 2:
        lines = paired(lines)
    rows = rows_of(lines, model.task.num_texts)
    answers = model.answers(rows)
    for line, prediction in zip(lines, answers, strict=True):
        answer = {"text": line, **prediction.as_json()}
        print_result(answer, prediction.text(), as_json, one_line=True)
    _warn_of_cut(sum(answer.is_cut for answer in answers), len(answers), model.task.max_length)


def _predict_file(
    folder: Path,
    source: Path | None,
    target: Path | None,
    texts: list[str] | None,
    text: list[str] | None,
    keep: list[str] | None,
    side: str | None,
    form: Form,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from attar.errors import UsageError
    from attar.export.opened import open_exported
    from attar.export.predicted_files import predict_file
    from attar.progress import Progress, human_seconds
    from attar.recipe.running.signals import stop_requests

    if source is None or target is None or texts:
        raise UsageError(
            "--input and --output are needed together, and exclude texts as arguments: "
            "attar predict DIR --input x.csv --text message --output y.csv"
        )
    model = open_exported(folder, threads=threads)
    with stop_requests(quiet) as should_stop:
        done = predict_file(
            model,
            source,
            target,
            text=text or (),
            keep=keep,
            side=side,
            form=form,
            progress=Progress(quiet=quiet),
            should_stop=should_stop,
        )
    _warn_of_cut(done.cut, done.rows, model.task.max_length)
    if done.faulty:
        print(
            f"warning: {done.faulty:,} of {done.rows:,} rows have no prediction; see the column "
            "'error'",
            file=sys.stderr,
        )
    rate = f", {done.rows_per_s:,.0f} a second" if done.rows_per_s else ""
    said = f"{done.rows:,} rows in {human_seconds(done.seconds)}{rate}: {done.output}"
    print_result(asdict(done), said, as_json)


def _warn_of_cut(cut: int, texts: int, max_length: int) -> None:
    if cut:
        print(
            f"warning: {cut} of {texts} texts have more than {max_length} tokens and were "
            "truncated",
            file=sys.stderr,
        )


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An exported model.")],
    repo: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="Repository on the hub, owner/name; private if new."
        ),
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="License for the card, such as apache-2.0; default: none.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Create a public repository; default: private.")
    ] = False,
    upload: Annotated[
        bool, typer.Option("--upload", help="Upload; default: a dry run that lists the files.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Publish an exported model and its card on the Hugging Face Hub."""
    from attar.export.push import push as push_folder

    pushed = push_folder(folder, repo, license=license, is_private=not public, is_upload=upload)
    print_result(pushed.as_json(), pushed.text(), as_json)
