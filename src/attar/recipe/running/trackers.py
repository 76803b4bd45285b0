"""Logs training metrics to TensorBoard or trackio during training.

Enabled by `[run] log = ["tensorboard"]` in a recipe. A tracker gets the lines of `history.jsonl`,
flattened (`losses.forward_kl`, `validation.accuracy`), under the name of the step. After a resume,
the lines since the last checkpoint are logged again with the same values. Nothing is uploaded:
TensorBoard's files are in the run's folder, trackio's in its own cache.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from attar.extras import require
from attar.recipe.schema import flattened

EXTRA = "track"
Tracker = Callable[[str, int, Mapping[str, float]], None]
"""(name of the step in the recipe, optimizer step, metrics)."""


@contextmanager
def _tensorboard(run: str, folder: Path) -> Generator[Tracker]:
    """Write event files in the run folder: tensorboard --logdir runs/<name>/tensorboard."""
    require("tensorboard", EXTRA)
    writer_class: Any = require("torch.utils.tensorboard", EXTRA).SummaryWriter
    writers: dict[str, Any] = {}

    def track(step: str, at: int, figures: Mapping[str, float]) -> None:
        if step not in writers:
            writers[step] = writer_class(log_dir=str(folder / "tensorboard" / step))
        for name, value in figures.items():
            writers[step].add_scalar(name, value, at)
        writers[step].flush()

    try:
        yield track
    finally:
        for writer in writers.values():
            writer.close()


@contextmanager
def _trackio(run: str, folder: Path) -> Generator[Tracker]:
    """Log to a trackio project with the recipe's name (`trackio show`). Its output is redirected,
    because stdout is for results only."""
    trackio: Any = require("trackio", EXTRA)
    begun: list[str] = []

    def track(step: str, at: int, figures: Mapping[str, float]) -> None:
        if begun[-1:] != [step]:
            with redirect_stdout(sys.stderr):
                if begun:
                    trackio.finish()
                trackio.init(project=run, name=step, auto_log_cpu=False, auto_log_gpu=False)
            begun.append(step)
        trackio.log(dict(figures), step=at)

    try:
        yield track
    finally:
        if begun:
            with redirect_stdout(sys.stderr):
                trackio.finish()


TRACKERS: Mapping[str, Callable[[str, Path], AbstractContextManager[Tracker]]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
}
"""Name in `[run] log` → function that opens the tracker, given the recipe's name and run folder."""


@contextmanager
def tracking(
    names: Sequence[str],
    run: str,
    folder: Path,
    trackers: Mapping[str, Callable[[str, Path], AbstractContextManager[Tracker]]] = TRACKERS,
) -> Generator[Callable[[str, Mapping[str, Any]], None]]:
    """Yield a function that sends (name of the step, line of its history) to every tracker.

    Raises:
        UsageError: a tracker's library is not installed.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(trackers[name](run, folder)) for name in names]

        def track(step: str, line: Mapping[str, Any]) -> None:
            flat = flattened({name: value for name, value in line.items() if name != "step"})
            figures: dict[str, float] = {
                name: float(value)
                for name, value in flat.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
            for tracker in opened:
                tracker(step, int(line["step"]), figures)

        yield track
