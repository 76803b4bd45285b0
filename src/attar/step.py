"""The interface of a step: a function of (config, context) that writes one folder and returns its
metrics.

    def train(config: TrainStep, context: StepContext) -> dict[str, Any]: ...

The engine creates the folder, calls the step, and publishes the folder with its `result.json` by
one atomic rename. Inputs of a step are always complete, and a step never has to clean up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attar.errors import StoppedError
from attar.progress import Progress


def never_stop() -> bool:
    return False


def untracked(line: Mapping[str, Any]) -> None:
    """Default for `track`: does nothing."""


@dataclass(frozen=True)
class CountedFlops:
    """FLOPs, counted in two ways."""

    all: int
    """All matrix products: blocks, attention, head."""
    non_embedding: int
    """The convention of papers: 2·N per token of a forward pass, where N is the number of
    parameters without embeddings and language head."""


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """Estimated cost of one step, from the function in its `plan.py`."""

    name: str = ""
    run: str = ""
    """`name` and `run` are set when the whole recipe is planned."""
    num_params: int | None = None
    """Number of parameters of the model that it makes."""
    flops: int = 0
    """FLOPs of the whole step."""
    memory_mib: float
    disk_mib: float
    """Disk space of the artifact and of temporary files."""
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Dotted name of a metric in the step's result → expected value. The number of rows comes
    first."""
    passes: float | None = None
    """Epochs of a training; otherwise forward passes over the texts, where a backward pass counts
    as two."""
    texts_at_once: int = 1
    """Number of texts at a time in `memory_mib`."""
    text_mib: float = 0.0
    """Memory per text."""
    lowered_by: str = ""
    """The setting that reduces the number of texts at a time without changing the batch."""
    is_estimate: bool = False
    """Whether the number of rows, and what depends on it, is extrapolated from a sample."""
    training: CountedFlops | None = None
    """For a train step: FLOPs of training without evaluations."""
    note: str = ""
    """A note below the table; "" for none."""

    @property
    def least_mib(self) -> float:
        """Memory with one text at a time."""
        return self.memory_mib - (self.texts_at_once - 1) * self.text_mib


@dataclass(frozen=True)
class MadeRows:
    """Rows made by an earlier step and used as data; read by `data_of`."""

    reader: str
    """"module:function" (MadeRows, StepContext) → TextData."""
    folder: Path
    """The step's artifact."""
    step: Any
    """The step's settings."""
    seed: int
    """The seed that the step ran with."""
    part: str = "all"
    """Part of the rows, if the step makes several."""


@dataclass(frozen=True)
class StepContext:
    """The input of a step, in addition to its config."""

    name: str
    """The step's name in the recipe."""
    folder: Path
    """Output folder, initially empty; its contents become the artifact."""
    scratch: Path
    """Folder for checkpoints. It survives a kill, and the same step with the same key finds it
    again. Removed after publishing."""
    inputs: Mapping[str, Path]
    """Step name → its published artifact folder."""
    data: Mapping[str, Any]
    """Name → the `[data.<name>]` config of the recipe, or the `MadeRows` of a step before this
    one."""
    recipe_folder: Path
    """Base folder of relative paths in the recipe."""
    progress: Progress
    seed: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The whole recipe as plain data, after overrides, for the report."""
    should_stop: Callable[[], bool] = never_stop
    """Returns True after SIGTERM or SIGINT: save to `scratch`, then raise `StoppedError`."""

    track: Callable[[Mapping[str, Any]], None] = untracked
    """Called with each line of a training history."""

    def stop_if_asked(self, what: str) -> None:
        """Stop work that has no checkpoints because it is short enough to start over.

        Raises:
            StoppedError: SIGTERM or SIGINT has arrived.
        """
        if self.should_stop():
            raise StoppedError(
                f"stopped during step {self.name!r}; {what} has no checkpoint and starts over on "
                "resume"
            )

    @contextmanager
    def counted(
        self, title: str, total: int, what: str, *, counts_work: bool = False
    ) -> Generator[Callable[..., None]]:
        """Show a progress bar. Yields a function to call after each unit of work, with the number
        of units done and a note.

        Args:
            counts_work: as in `Progress.task`.

        Raises:
            StoppedError: as `stop_if_asked`, between two units.
        """
        with self.progress.task(title, total, counts_work=counts_work) as bar:

            def advance(count: int = 1, note: str = "") -> None:
                self.stop_if_asked(what)
                bar.advance(count, note)

            yield advance
