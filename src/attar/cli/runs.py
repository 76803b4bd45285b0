"""Commands for a recipe and its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import Debug, Json, Out, Overrides, Quiet, RecipeFile, RunFolder
from attar.cli.output import conclude, print_result
from attar.escaping import for_terminal

KeepReplaced = Annotated[
    bool,
    typer.Option("--keep-replaced", help="Keep replaced artifacts in the run's .kept, for good."),
]


def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    keep_replaced: KeepReplaced = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a recipe. Finished steps are reused unless their settings or inputs have changed."""
    from attar.recipe.run import run_recipe

    summary = run_recipe(
        recipe,
        overrides=overrides or (),
        out=out,
        quiet=quiet,
        enforce_gates=False,
        keep_replaced=keep_replaced,
    )
    conclude(summary, as_json)


def check(
    recipe: RecipeFile, overrides: Overrides = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Find every mistake in a recipe, its data and its models before anything runs."""
    from attar.progress import Progress
    from attar.recipe.checking.doubts import doubts
    from attar.recipe.checking.local_files import look_at_data, require_models
    from attar.recipe.load import load_recipe, require_data

    checked, folder = load_recipe(recipe, overrides or ()), recipe.resolve().parent
    require_data(checked, folder)
    require_models(checked, folder)
    data = look_at_data(checked, folder)
    for doubt in doubts(checked, folder):
        Progress().warn(doubt)
    order = list(checked.order)
    steps = "1 step" if len(order) == 1 else f"{len(order)} steps"
    fine = for_terminal(f"{recipe}: fine; {steps}: {' → '.join(order)}")
    found = [summary.as_json() for summary in data]
    text = "\n".join([*(line for summary in data for line in summary.lines()), fine])
    print_result({"name": checked.name, "steps": order, "data": found}, text, as_json)


def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    flops_per_s: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help=(
                "Plan for a device with this many FLOP/s, such as 1.5e14; default: the measured "
                "speed of this machine."
            ),
        ),
    ] = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Estimate what a recipe costs (FLOPs, memory, disk, time), and show which steps are done."""
    from attar.cores import prepare_torch
    from attar.progress import Progress
    from attar.recipe.load import load_recipe
    from attar.recipe.outcome.sweep import expand
    from attar.recipe.plan import plan_recipe
    from attar.recipe.running.intents import intents_in
    from attar.recipe.running.memory import require_memory

    prepare_torch()  # before its speed is measured
    checked = expand(load_recipe(recipe, overrides or ())).recipe  # including the copies of a sweep
    folder = recipe.resolve().parent
    intents = intents_in((out or Path("runs")) / checked.name, checked, folder)
    planned = plan_recipe(
        checked, folder, intents=intents, flops_per_s=flops_per_s, progress=Progress()
    )
    print_result(planned.as_json(), planned.text(), as_json)
    if flops_per_s is None:  # otherwise it is planned for another machine, with other memory
        require_memory(planned, Progress(), [step.name for step in planned.missing])


def status(
    folder: RunFolder,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte, to find damaged files.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show which steps of a run are done or running, and their metrics."""
    from attar.recipe.outcome.status import status_of

    found = status_of(folder, every_byte=verify)
    print_result(found.as_json(), found.text(), as_json)
    if verify:
        found.require_whole()


def resume(
    folder: RunFolder,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Rerun the steps whose data, model or code has changed.",
        ),
    ] = False,
    keep_replaced: KeepReplaced = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Continue a run that was stopped."""
    from attar.recipe.run import resume_run

    summary = resume_run(
        folder,
        accept_changes=accept_changes,
        quiet=quiet,
        enforce_gates=False,
        keep_replaced=keep_replaced,
    )
    conclude(summary, as_json)


def report(
    folder: RunFolder, as_json: Json = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Write a run's report again, from the results of its steps."""
    from attar.recipe.report_again import report_again

    page = report_again(folder, quiet=quiet)
    print_result({"report": str(page)}, for_terminal(page, most=None), as_json)
