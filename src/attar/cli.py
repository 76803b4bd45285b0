"""The command line: each verb fetches its work only when it is called.

stdout carries the result (`--json` for machines), stderr the progress and the errors. A user's
mistake is one message and an exit code of the contract; a bug of ours is exit code 1 with the
traceback kept. Nothing heavy is imported at the top: `attar --help` must answer at once.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attar import __version__
from attar.errors import AttarError
from attar.escaping import for_terminal

if TYPE_CHECKING:
    from attar.recipe.outcome.summary import RunSummary

BUG_EXIT_CODE = 1
INTERRUPTED_EXIT_CODE = 130
"""What typer makes of a KeyboardInterrupt."""

app = typer.Typer(
    help="Make small language models out of big ones, and prove what they are worth.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_debug = False


def _print_version(value: bool) -> None:
    if value:
        print(f"attar {__version__}")
        raise typer.Exit


@app.callback()
def _attar(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def _remember_debug(value: bool) -> bool:
    global _debug
    _debug = _debug or value
    return value


RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.toml", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder: runs/<name>.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="K=V", help="Override a setting; repeatable, TOML values."),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Where runs go; default: ./runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_remember_debug, help="Show tracebacks of mistakes too.")
]
Model = Annotated[str, typer.Option(metavar="MODEL", help="A folder, a hub id, or demo:minilm-l6.")]
Data = Annotated[
    str,
    typer.Option(metavar="DATA", help="stdlib_docs, stdlib_text, glue:TASK[@FOLDER], or files."),
]


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a recipe; what is already there and still fits is reused."""
    from attar.recipe.run import run_recipe

    summary = run_recipe(
        recipe, overrides=overrides or (), out=out, quiet=quiet, enforce_gates=False
    )
    _conclude(summary, as_json)


@app.command()
def check(
    recipe: RecipeFile, overrides: Overrides = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Find every mistake in a recipe before anything runs."""
    from attar.recipe.load import load_recipe, require_data

    checked = load_recipe(recipe, overrides or ())
    require_data(checked, recipe.resolve().parent)
    order = list(checked.order)
    steps = "1 step" if len(order) == 1 else f"{len(order)} steps"
    text = f"{recipe}: fine; {steps}: {' → '.join(order)}"
    _print({"name": checked.name, "steps": order}, for_terminal(text), as_json)


@app.command()
def plan(
    recipe: RecipeFile, overrides: Overrides = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Say what a recipe will cost: parameters, FLOPs, memory, disk and time."""
    from attar.cores import prepare_torch
    from attar.progress import Progress
    from attar.recipe.load import load_recipe
    from attar.recipe.outcome.sweep import expand
    from attar.recipe.plan import plan_recipe
    from attar.recipe.running.memory import require_memory

    prepare_torch()  # whose speed is measured here
    checked = expand(load_recipe(recipe, overrides or ())).recipe  # every copy of a sweep
    planned = plan_recipe(checked, recipe.resolve().parent)
    _print(planned.as_json(), planned.text(), as_json)
    require_memory(planned, Progress(), [step.name for step in planned.steps])


@app.command()
def status(
    folder: RunFolder,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte of it.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which steps of a run are there, which are being made, and what they measured."""
    from attar.recipe.outcome.status import status_of

    found = status_of(folder, every_byte=verify)
    _print(found.as_json(), found.text(), as_json)
    if verify:
        found.require_whole()


@app.command()
def resume(
    folder: RunFolder,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Start the steps anew whose data, model or code has changed since.",
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Go on with a run that was stopped, from its folder alone."""
    from attar.recipe.run import resume_run

    summary = resume_run(folder, accept_changes=accept_changes, quiet=quiet, enforce_gates=False)
    _conclude(summary, as_json)


@app.command()
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
        _print(answer, prediction.text(), as_json, one_line=True)
    if cut := sum(answer.is_cut for answer in answers):
        print(
            f"warning: {cut} of {len(answers)} texts have more than {model.task.max_length} tokens "
            "and were cut",
            file=sys.stderr,
        )


@app.command()
def train(
    model: Model,
    data: Data,
    teacher: Annotated[str | None, typer.Option(metavar="MODEL", help="Distil from it.")] = None,
    epochs: Annotated[float | None, typer.Option()] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    overrides: Overrides = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit a model to data, alone or with a teacher."""
    settings = {
        "model": model,
        "data": data,
        "teacher": teacher,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
    }
    _run_one_step("train", settings, overrides, out, as_json, quiet)


@app.command()
def analyze(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="As for the other verbs; the studies gamma and histograms need none.",
        ),
    ] = None,
    study: Annotated[
        str,
        typer.Option(
            help="outliers, outlier_tokens, gamma, histograms, disabling, site_cosine, "
            "leave_one_kind, gamma_cosine or clipping."
        ),
    ] = "outliers",
    overrides: Overrides = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find out why a model is hard to quantize: one study."""
    settings = {"model": model, "data": data, "study": study}
    _run_one_step("analyze", settings, overrides, out, as_json, quiet)


@app.command()
def quantize(
    model: Model,
    data: Data,
    method: Annotated[str, typer.Option(help="minmax or percentile.")] = "percentile",
    weight_bits: Annotated[int, typer.Option(min=2, max=8)] = 8,
    activation_bits: Annotated[int, typer.Option(min=2, max=8)] = 8,
    examples: Annotated[int, typer.Option(min=1, help="Calibration texts.")] = 256,
    overrides: Overrides = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Round a fine-tuned model to few bits, its ranges set by texts of DATA."""
    settings = {
        "model": model,
        "method": method,
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "calibration": {"data": data, "examples": examples},
    }
    _run_one_step("quantize", settings, overrides, out, as_json, quiet)


@app.command()
def export(
    model: Model,
    data: Annotated[
        str,
        typer.Option(metavar="DATA", help="Texts of the parity check: as for the other verbs."),
    ],
    format: Annotated[str, typer.Option(help="openvino, onnxruntime or safetensors.")] = "openvino",
    overrides: Overrides = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn a quantized or trained model into a folder that a CPU runtime opens."""
    _run_one_step(
        "export", {"model": model, "data": data, "format": format}, overrides, out, as_json, quiet
    )


@app.command()
def evaluate(
    model: Annotated[list[str], typer.Option(metavar="MODEL", help="Repeat to compare models.")],
    data: Data,
    overrides: Overrides = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure models of any form on the same data: quality with intervals, speed, size, memory."""
    _run_one_step("evaluate", {"models": model, "data": data}, overrides, out, as_json, quiet)


@app.command()
def report(folder: RunFolder, as_json: Json = False, debug: Debug = False) -> None:
    """Write a run's report again from what its steps left on disk."""
    from attar.recipe.report_again import report_again

    page = report_again(folder)
    _print({"report": str(page)}, for_terminal(page, most=None), as_json)


def _run_one_step(
    verb: str,
    settings: Mapping[str, Any],
    overrides: Sequence[str] | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from attar.recipe.one_step import run_one_step

    _conclude(run_one_step(verb, settings, overrides or (), out, quiet=quiet), as_json)


def _conclude(summary: RunSummary, as_json: bool) -> None:
    """Print what became of a run first, and only then fail for a gate it missed."""
    _print(summary.as_json(), summary.text(), as_json)
    summary.require_gates()


def _print(plain: Any, text: str, as_json: bool, one_line: bool = False) -> None:
    if as_json:
        is_utf_8 = str(sys.stdout.encoding).lower().replace("-", "") == "utf8"
        words = json.dumps(plain, ensure_ascii=not is_utf_8, indent=None if one_line else 2)
        text = "\n".join(for_terminal(line, most=None) for line in words.split("\n"))
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader has gone (`| head`): the rest has nowhere to go, and the exit code stays that
        # of the work. The descriptor itself is turned, or Python would fail when it flushes at
        # its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_what_the_terminal_cannot() -> None:
    """In a locale without UTF-8 an arrow is written as its escape, and is no reason to fail after
    an hour's work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print_traceback() -> None:
    lines = traceback.format_exc().splitlines()
    print("\n".join(map(for_terminal, lines)), file=sys.stderr)


def main() -> None:
    """The `attar` command: run a verb, and turn what it raises into a message and an exit code."""
    _say_what_the_terminal_cannot()
    try:
        app()
    except AttarError as error:
        if _debug:
            _print_traceback()
        print("error: " + "\n".join(map(for_terminal, error.lines)), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except SystemExit as end:
        if end.code == INTERRUPTED_EXIT_CODE:
            print(
                "interrupted at once; what was published is intact, and the same command goes on",
                file=sys.stderr,
            )
        raise
    except Exception as bug:
        _print_traceback()
        print(
            f"\nerror: this is a bug of attar, not of yours ({type(bug).__name__}); "
            "please report it with the lines above",
            file=sys.stderr,
        )
        raise SystemExit(BUG_EXIT_CODE) from None


if __name__ == "__main__":
    main()
