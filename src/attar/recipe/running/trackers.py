"""What training measures, as it measures it, in the programs that draw curves.

`[run] log = ["tensorboard"]` in a recipe. A tracker gets the lines of `history.jsonl`, flattened
(`losses.forward_kl`, `validation.accuracy`), each under its step's name. After a resume the lines
since the last checkpoint come again, with the same figures. Nothing is sent anywhere: TensorBoard's
files are in the run's folder, trackio's in its own cache.
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
"""(step's name in the recipe, optimizer step, figures)."""


@contextmanager
def _tensorboard(run: str, folder: Path) -> Generator[Tracker]:
    """Event files below the run's folder: tensorboard --logdir runs/<name>/tensorboard."""
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
    """A trackio project with the recipe's name: trackio show. It prints, and stdout carries results
    alone."""
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
"""Name in `[run] log` → what opens it, with the recipe's name and the run's folder."""


@contextmanager
def tracking(
    names: Sequence[str],
    run: str,
    folder: Path,
    trackers: Mapping[str, Callable[[str, Path], AbstractContextManager[Tracker]]] = TRACKERS,
) -> Generator[Callable[[str, Mapping[str, Any]], None]]:
    """Yield (step's name, line of its history) → None, which tells every tracker.

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
