"""One run of one recipe in one locked folder: decide for each step to reuse or to make, and publish
what is made.

    same key and every byte as written?  yes: reuse   no: run into staging, then publish by one
    rename

Keys of all steps come first, so data or a model that does not exist, or an artifact that was
damaged, is found before anything runs. A killed run leaves a staging folder, which the next one
removes, and the step's scratch, from which it goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from attar.artifacts import (
    RESULT_FILE,
    Result,
    disk_errors_explained,
    publish,
    read_result,
    verify,
)
from attar.errors import ArtifactError, StoppedError
from attar.progress import Progress, human_seconds
from attar.recipe.graph import in_order, inputs_of
from attar.recipe.keys import Fingerprints, keys_of, step_seed
from attar.recipe.peak_memory import peak_memory
from attar.recipe.schema import Recipe
from attar.recipe.steps import StepKind, kind_of
from attar.recipe.summary import StepSummary
from attar.recipe.versions import versions
from attar.step import StepContext

STAGING = ".staging"
SCRATCH = ".scratch"


class Engine:
    """One run of one recipe in one locked folder."""

    def __init__(
        self,
        recipe: Recipe,
        recipe_folder: Path,
        folder: Path,
        progress: Progress,
        should_stop: Callable[[], bool],
        kinds: Mapping[str, StepKind],
    ) -> None:
        self.recipe, self.recipe_folder, self.folder = recipe, recipe_folder, folder
        self.progress, self.should_stop, self.kinds = progress, should_stop, kinds
        self.inputs = inputs_of(recipe.steps, kinds)
        self.order = in_order(self.inputs)
        self.keys: dict[str, str] = {}
        self.reusable: dict[str, Result] = {}

    def prepare(self, fingerprints: Fingerprints | None) -> None:
        """Compute all keys, find what can be reused, remove what a killed run left half-written."""
        shutil.rmtree(self.folder / STAGING, ignore_errors=True)
        self.keys = keys_of(
            self.recipe, self.order, self.recipe_folder, kinds=self.kinds, fingerprints=fingerprints
        )
        for name in self.order:
            result = self._published(name)
            if result is not None:
                self.reusable[name] = result

    def _published(self, name: str) -> Result | None:
        """The verified artifact with this step's key; None when there is none or it has another
        key."""
        folder = self.folder / name
        if not folder.exists():
            return None
        if not (folder / RESULT_FILE).is_file():
            raise ArtifactError(
                f"{folder} is in the way of step {name!r} and is no artifact (no {RESULT_FILE}); "
                "move it elsewhere, or choose another folder with --out"
            )
        return verify(folder) if read_result(folder).key == self.keys[name] else None

    def run(self) -> list[StepSummary]:
        done: list[StepSummary] = []
        for number, name in enumerate(self.order, start=1):
            run = str(self.recipe.steps[name].run)
            heading = f"step {number}/{len(self.order)} {name} ({run})"
            result = self.reusable.get(name)
            if result is None:
                if self.should_stop():
                    raise StoppedError(f"before step {name!r}")
                self.progress.say(heading)
                result = self._make(name)
                self.progress.say(f"{heading}: done in {human_seconds(result.seconds)}")
            else:
                self.progress.say(f"{heading}: reused, same key {result.key}")
            done.append(
                StepSummary(
                    name,
                    run,
                    result.key,
                    name in self.reusable,
                    result.seconds,
                    self.folder / name,
                    result.metrics,
                )
            )
        return done

    def _make(self, name: str) -> Result:
        step, key = self.recipe.steps[name], self.keys[name]
        staging = self.folder / STAGING / f"{name}-{key}"
        scratch = self.folder / SCRATCH / f"{name}-{key}"
        with disk_errors_explained(self.folder):
            staging.mkdir(parents=True)
            scratch.mkdir(parents=True, exist_ok=True)
        context = StepContext(
            name=name,
            folder=staging,
            scratch=scratch,
            inputs={i: self.folder / i for i in self.inputs[name]},
            data=self.recipe.data,
            recipe_folder=self.recipe_folder,
            progress=self.progress,
            seed=step_seed(step, self.recipe.seed),
            recipe=self.recipe.model_dump(mode="json", by_alias=True),
            should_stop=self.should_stop,
        )
        start = time.monotonic()
        with disk_errors_explained(self.folder), peak_memory() as memory:
            metrics = kind_of(step, self.kinds).resolve()(step, context)
        result = Result(
            step=name,
            run=str(step.run),
            key=key,
            inputs={i: self.keys[i] for i in self.inputs[name]},
            seconds=round(time.monotonic() - start, 3),
            peak_rss_mib=memory.peak_rss_mib,
            metrics=metrics,
            versions=versions(),
        )
        result = publish(staging, self.folder / name, result)
        self._remove_scratch(name)
        return result

    def _remove_scratch(self, name: str) -> None:
        """Scratch of this step under any key: the step is published, nothing will come back for
        it."""
        for folder in (self.folder / SCRATCH).glob(f"{name}-????????????????"):
            shutil.rmtree(folder, ignore_errors=True)
