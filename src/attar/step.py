"""What a step is given: a function of (config, context) that writes one folder and returns its
metrics.

    def train(config: TrainStep, context: StepContext) -> dict[str, Any]: ...

The engine makes the folder, calls the step, and publishes the folder with its `result.json` in one
atomic rename; a step never sees a half-written input and never has to clean up after itself.
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
    """Nothing follows what is measured."""


@dataclass(frozen=True)
class CountedFlops:
    """Operations, counted in two ways."""

    all: int
    """Every matrix product: blocks, attention between tokens, head."""
    non_embedding: int
    """As papers count: 2·N a token for a forward pass, where N is the number of parameters without
    embeddings and language head."""


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What one step will cost: the answer of the function in the `plan.py` beside it."""

    name: str = ""
    run: str = ""
    """Both are filled in where the whole recipe is planned."""
    num_params: int | None = None
    """Of the model it makes."""
    flops: int = 0
    """Of the whole step."""
    memory_mib: float
    disk_mib: float
    """Of the artifact, and of what it needs while it is made."""
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Metric of the step's result, by its dotted name → what it will be. The rows that the step
    reads come first."""
    passes: float | None = None
    """Of training, epochs; else forward passes over its texts, where a backward pass counts as
    two."""
    texts_at_once: int = 1
    """That `memory_mib` is for."""
    text_mib: float = 0.0
    """What each of them adds."""
    lowered_by: str = ""
    """The step's setting that takes fewer of them at once and leaves the batch as it is."""
    is_estimate: bool = False
    """The rows are estimated from some of them, and so is what follows from them."""
    training: CountedFlops | None = None
    """Of a train step: its training alone, without evaluations."""
    note: str = ""
    """A sentence below the table; "": none."""

    @property
    def least_mib(self) -> float:
        """Memory with one text at a time."""
        return self.memory_mib - (self.texts_at_once - 1) * self.text_mib


@dataclass(frozen=True)
class MadeRows:
    """Rows that an earlier step made, where a recipe names data; `data_of` reads them."""

    reader: str
    """"module:function" (MadeRows, StepContext) → TextData."""
    folder: Path
    """The step's artifact."""
    step: Any
    """The step's settings."""
    seed: int
    """What the step ran with."""
    part: str = "all"
    """Of the rows, where the step made several parts."""


@dataclass(frozen=True)
class StepContext:
    """Everything a step may know beside its own config."""

    name: str
    """The step's name in the recipe."""
    folder: Path
    """Empty on entry; what is written here becomes the artifact."""
    scratch: Path
    """Survives a kill: the same step with the same key finds it again. For checkpoints. Removed
    once published."""
    inputs: Mapping[str, Path]
    """Step name → its published artifact folder."""
    data: Mapping[str, Any]
    """Name → the `[data.<name>]` config of the recipe, or the `MadeRows` of a step before this
    one."""
    recipe_folder: Path
    """Relative paths in a recipe start here."""
    progress: Progress
    seed: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The whole recipe as plain data, after overrides; provenance for the report."""
    should_stop: Callable[[], bool] = never_stop
    """True once SIGTERM or SIGINT has arrived: save to `scratch`, then raise `StoppedError`."""

    track: Callable[[Mapping[str, Any]], None] = untracked
    """Told of each line of a training history as it is written."""

    def stop_if_asked(self, what: str) -> None:
        """For work that keeps no checkpoint and is short enough to begin again.

        Raises:
            StoppedError: SIGTERM or SIGINT has arrived.
        """
        if self.should_stop():
            raise StoppedError(
                f"stopped during step {self.name!r}; {what} has no checkpoint and starts over on "
                "resume"
            )

    @contextmanager
    def counted(self, title: str, total: int, what: str) -> Generator[Callable[..., None]]:
        """A bar, and what to call after each piece of the work: how many are done, and a note.

        Raises:
            StoppedError: as `stop_if_asked`, between two pieces.
        """
        with self.progress.task(title, total) as bar:

            def advance(count: int = 1, note: str = "") -> None:
                self.stop_if_asked(what)
                bar.advance(count, note)

            yield advance
