"""Runs a recipe in one locked folder: each step is reused, or run and published.

    same key and unchanged files?  yes: reuse   no: run in a staging folder, publish by one rename

Keys of all steps are computed first, so missing data or models and damaged artifacts are found
before anything runs. A killed run leaves a staging folder, which the next run removes (or
publishes, if it was already sealed), and the step's scratch folder, from which the step continues.

A replaced artifact is moved to `.replaced` and kept until the run succeeds (with `keep_replaced`
permanently, in `.kept`). A run that needs it again, because the recipe or data was changed back,
restores it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from attar.artifacts import (
    MIB,
    RESULT_FILE,
    Result,
    disk_errors_explained,
    files_below,
    put_in_place,
    read_result,
    remove_outdated,
    seal,
    verify,
)
from attar.config import in_recipe_folder
from attar.cores import prepare_torch, usable_cores
from attar.errors import ArtifactError, StoppedError
from attar.progress import Progress, counted, human_seconds
from attar.recipe.graph import in_order, inputs_of, upstream
from attar.recipe.keys import Fingerprints, keys_of, room_fingerprints, step_seed
from attar.recipe.outcome.summary import StepSummary
from attar.recipe.running.changes import changes_of
from attar.recipe.running.intents import KEPT, REPLACED, Intent, intent_lines, resting_places
from attar.recipe.running.known_hashes import KnownHashes
from attar.recipe.running.memory import memory_explained, peak_memory
from attar.recipe.running.time_left import SUFFIX, TimeLeft, session
from attar.recipe.running.versions import versions
from attar.recipe.schema import Recipe
from attar.recipe.steps import StepKind, as_table, kind_of, run_of
from attar.step import MadeRows, StepContext

STAGING = ".staging"
SCRATCH = ".scratch"
KEY_PATTERN = "?" * 16
"""Glob pattern of a key."""


def require_own_folders(folder: Path) -> None:
    """Check that the working folders of a run contain no links to other places.

    Raises:
        ArtifactError: a working folder, or something in it, is a link.
    """
    for place in (STAGING, SCRATCH, REPLACED, KEPT):
        for path in (folder / place, *(folder / place).rglob("*")):
            if path.is_symlink():
                raise ArtifactError(
                    f"{path} is a link, but a run only writes inside its own folder; remove it"
                )


class Engine:
    """A run in progress. The folder must exist and its lock be held."""

    def __init__(
        self,
        recipe: Recipe,
        recipe_folder: Path,
        folder: Path,
        *,
        kinds: Mapping[str, StepKind],
        progress: Progress,
        should_stop: Callable[[], bool],
    ) -> None:
        self.recipe, self.recipe_folder, self.folder = recipe, recipe_folder, folder
        self.kinds, self.progress, self.should_stop = kinds, progress, should_stop
        self.inputs = inputs_of(recipe.steps, kinds)
        self.order = in_order(self.inputs)
        self.keys: dict[str, str] = {}
        self.made_from: dict[str, Mapping[str, Any]] = {}
        self.changed: dict[str, list[str]] = {}
        """Step whose artifact has another key → differences from what it was made from."""
        self.reusable: dict[str, Result] = {}
        self.time_left = TimeLeft({})
        self.hashes = KnownHashes(folder)
        self.machine: Mapping[str, Any] = {}
        self.track: Callable[[str, Mapping[str, Any]], None] = lambda step, line: None
        """Called with each line of a step's history."""

    def choose_threads(self) -> None:
        """Set the number of threads and how they wait, before torch is loaded."""
        threads = prepare_torch()
        self.machine = {"cores": usable_cores(), "threads": str(threads)}
        slower = f"; {threads.reason}, so this run takes longer" if threads.is_crowded else ""
        self.progress.say(f"cores: {usable_cores()}{slower}")

    def find_keys(self, fingerprints: Fingerprints | None) -> None:
        """Compute the key of every step; reads data and models outside the recipe."""
        found = keys_of(
            self.recipe,
            self.order,
            self.recipe_folder,
            kinds=self.kinds,
            fingerprints=fingerprints or room_fingerprints(self.hashes.sha256),
        )
        self.keys = {name: step.key for name, step in found.items()}
        self.made_from = {name: step.made_from for name, step in found.items()}

    def changes(self, name: str, before: Mapping[str, Any]) -> list[str]:
        """Differences between a step's earlier `made_from` and the current one."""
        return changes_of(self.recipe, name, before, self.made_from[name], self.kinds)

    def find_reusable(self) -> None:
        """Verify existing artifacts, publish sealed ones, restore replaced ones that are needed
        again, and remove incomplete ones."""
        with disk_errors_explained(self.folder):
            for name in self.order:
                key = self.keys[name]
                for place in (
                    self.folder / STAGING / f"{name}-{key}",
                    *resting_places(self.folder, name, key),
                ):
                    self._put_back(name, place)
            shutil.rmtree(self.folder / STAGING, ignore_errors=True)
            remove_outdated(self.folder)
        for name in self.order:
            result = self._published(name)
            if result is not None:
                self.reusable[name] = result
                self._remove_scratch(name)
        self.hashes.save()

    @property
    def intents(self) -> tuple[Intent, ...]:
        """What this run does with each step; call `find_reusable` first."""
        return tuple(
            Intent(
                name,
                "reuse" if name in self.reusable else "replace" if name in self.changed else "make",
                self.folder / name,
                tuple(self.changed.get(name, ())),
            )
            for name in self.order
        )

    def say_intents(self, *, keep_replaced: bool) -> None:
        """If there was an earlier run, print what happens to its artifacts."""
        for line in intent_lines(self.intents):
            self.progress.say(f"  {line}")
        if self.changed:
            self.progress.say(
                f"replaced artifacts are moved to {KEPT} and kept"
                if keep_replaced
                else f"replaced artifacts are kept in {REPLACED} until the run has ended well; "
                "--keep-replaced keeps them for good"
            )

    def unfinished(self, name: str) -> list[Path]:
        """Scratch folders with progress of a step that was started with another key."""
        own = f"{name}-{self.keys[name]}"
        found = (self.folder / SCRATCH).glob(f"{name}-{KEY_PATTERN}")
        return [folder for folder in found if folder.name != own and any(folder.iterdir())]

    def _put_back(self, name: str, sealed: Path) -> None:
        """Publish a complete artifact with the right key from another folder. A damaged one is
        skipped, and the step runs again."""
        if not (sealed / RESULT_FILE).is_file():
            return
        self.require_artifact(name)
        try:
            verify(sealed, self.hashes.sha256)
        except ArtifactError as error:
            self.progress.warn(f"step {name!r} is not reused from {sealed}: {error}")
            return
        put_in_place(sealed, self.folder / name, self._kept(name))

    def _kept(self, name: str) -> Path | None:
        """Where the published artifact is moved when it is replaced."""
        folder = self.folder / name
        if not (folder / RESULT_FILE).is_file():
            return None
        try:
            key = read_result(folder).key
        except ArtifactError:
            key = ""
        return self.folder / REPLACED / f"{name}-{key if key.isalnum() else 'damaged'}"

    def forget_replaced(self, names: str = "*") -> None:
        """Remove replaced artifacts, after the run has succeeded."""
        for folder in (self.folder / REPLACED).glob(names):
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # missing, or contains another step's artifact
            (self.folder / REPLACED).rmdir()

    def keep_replaced(self) -> None:
        """Move replaced artifacts to where later runs do not remove them."""
        with disk_errors_explained(self.folder):
            for folder in (self.folder / REPLACED).glob("*"):
                put_in_place(folder, self.folder / KEPT / folder.name)
                self.progress.say(f"kept: {self.folder / KEPT / folder.name}")
        self.forget_replaced()

    def say_what_is_kept(self) -> None:
        """Report replaced artifacts, which accumulate with each change while a gate is missed."""
        kept = list((self.folder / REPLACED).glob("*"))
        if kept:
            size = sum(file.stat().st_size for folder in kept for file in files_below(folder))
            self.progress.say(
                f"{self.folder / REPLACED} keeps {counted(len(kept), 'replaced artifact')} "
                f"({size / MIB:,.1f} MiB) until all gates pass; remove it if you do not want them "
                "back"
            )

    @property
    def missing(self) -> list[str]:
        """Steps to run, in order."""
        return [name for name in self.order if name not in self.reusable]

    @property
    def works(self) -> bool:
        """Whether any step other than a report has to run."""
        steps = (self.recipe.steps[name] for name in self.missing)
        return not all(kind_of(step, self.kinds).reads_everything for step in steps)

    def _published(self, name: str) -> Result | None:
        """The verified artifact with this step's key; None if there is none."""
        folder = self.folder / name
        self.require_artifact(name)
        if not folder.exists():
            return None
        result = read_result(folder)
        if result.key == self.keys[name]:
            if not result.sha256:
                self.progress.warn(
                    f"{name}: result.json has no hash of its own (made by an earlier version of "
                    f"attar), so edited numbers would go unnoticed; to be sure, remove {folder} "
                    "and run again"
                )
            return verify(folder, self.hashes.sha256)
        self.changed[name] = self.changes(name, result.made_from)
        return None

    def require_artifact(self, name: str) -> None:
        """Check that a step's folder is missing or an artifact, so that it can be replaced."""
        folder = self.folder / name
        if folder.is_symlink():
            raise ArtifactError(
                f"{folder} is a link, and step {name!r} reads and writes only inside the run's "
                "folder; put the folder it points to in its place, or remove it"
            )
        if folder.exists() and not (folder / RESULT_FILE).is_file():
            raise ArtifactError(
                f"{folder} is in the way of step {name!r} and is not an artifact (no "
                f"{RESULT_FILE}); move it elsewhere, or choose another folder with --out"
            )

    def run(self, before_reading_everything: Callable[[], object]) -> list[StepSummary]:
        """Reuse or run every step.

        Args:
            before_reading_everything: called before a step that reads the whole run folder.
        """
        summaries: list[StepSummary] = []
        for number, name in enumerate(self.order, start=1):
            step = self.recipe.steps[name]
            heading = f"step {number}/{len(self.order)} {name} ({run_of(step)})"
            result = self.reusable.get(name)
            if result is not None:
                self.progress.say(f"{heading}: reused, same key {result.key}")
            else:
                if self.should_stop():
                    raise StoppedError(f"stopped before step {name!r}")
                if kind_of(step, self.kinds).reads_everything:
                    before_reading_everything()
                self.progress.say(heading + self._left_in_all(number - 1))
                for folder in self.unfinished(name):
                    self.progress.warn(
                        f"{name}: partial work in {folder} was made with other settings or data, "
                        "so this step starts over; it is kept until the step is done"
                    )
                result = self.make(name, self.keys[name])
                self.time_left.made(name, result.seconds)
                self.progress.say(f"{heading}: done in {human_seconds(result.seconds)}")
            summaries.append(self._summary(name, result))
        return summaries

    def _left_in_all(self, done: int) -> str:
        left = self.order[done:]
        seconds = self.time_left.seconds(name for name in self.missing if name in left)
        return "" if seconds is None else f", about {human_seconds(seconds)} left in total"

    def _summary(self, name: str, result: Result) -> StepSummary:
        return StepSummary(
            name=name,
            run=result.run,
            key=result.key,
            reused=name in self.reusable,
            seconds=result.seconds,
            folder=self.folder / name,
            metrics=result.metrics,
        )

    def complete_cards(self, steps: Sequence[StepSummary]) -> None:
        """Write what was measured into the model cards of the exports."""
        from attar.export.measured_card import complete_card

        evaluated = [step.folder for step in steps if step.run == "evaluate"]
        for step in steps:
            if step.run == "export":
                staging = self.folder / STAGING / f"{step.name}-{step.key}"
                complete_card(step.folder, staging, evaluated, self.hashes.sha256)
        shutil.rmtree(self.folder / STAGING, ignore_errors=True)
        self.hashes.save()

    def make(self, name: str, key: str) -> Result:
        """Run one step with the available inputs and publish its artifact. An earlier artifact with
        another key is kept."""
        step = self.recipe.steps[name]
        staging = self.folder / STAGING / f"{name}-{key}"
        context = self._context(name, staging, self.folder / SCRATCH / f"{name}-{key}")
        with disk_errors_explained(self.folder):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            context.scratch.mkdir(parents=True, exist_ok=True)
        with (
            disk_errors_explained(self.folder),
            memory_explained(name),
            peak_memory() as memory,
            session(context.scratch) as seconds,
        ):
            metrics = kind_of(step, self.kinds).resolve()(step, context)
        result = Result(
            step=name,
            run=run_of(step),
            key=key,
            inputs={i: self.keys.get(i) or read_result(f).key for i, f in context.inputs.items()},
            seconds=round(seconds(), 3),
            peak_rss_mib=memory.peak_rss_mib,
            metrics=metrics,
            versions=versions(),
            made_from=self.made_from.get(name, {}),
            machine=self.machine,
        )
        with disk_errors_explained(self.folder):
            seal(staging, result, self.hashes.sha256)
            put_in_place(staging, self.folder / name, self._kept(name))
            self.hashes.save()
        self._remove_scratch(name)
        shutil.rmtree(self.folder / STAGING, ignore_errors=True)
        return read_result(self.folder / name)

    def _context(self, name: str, staging: Path, scratch: Path) -> StepContext:
        steps = self.recipe.steps
        data: dict[str, Any] = dict(self.recipe.data)
        for read in upstream(name, self.inputs):
            if reader := kind_of(steps[read], self.kinds).rows:
                seed = step_seed(steps[read], self.recipe.seed)
                data[read] = MadeRows(reader, self.folder / read, steps[read], seed)
        outside = {
            reference.word: in_recipe_folder(reference.word, self.recipe_folder)
            for reference in kind_of(steps[name], self.kinds).models_in(steps[name])
            if reference.wanted.steps_only and reference.word not in steps
        }
        return StepContext(
            name=name,
            folder=staging,
            scratch=scratch,
            inputs={i: self.folder / i for i in self.inputs[name]} | outside,
            data=data,
            recipe_folder=self.recipe_folder,
            progress=self.progress,
            seed=step_seed(self.recipe.steps[name], self.recipe.seed),
            recipe=as_table(self.recipe),
            should_stop=self.should_stop,
            track=partial(self.track, name),
        )

    def _remove_scratch(self, name: str) -> None:
        """Remove the scratch folders of a published step under any key."""
        for folder in (self.folder / SCRATCH).glob(f"{name}-{KEY_PATTERN}"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.folder / SCRATCH).glob(f"{name}-{KEY_PATTERN}{SUFFIX}"):
            file.unlink(missing_ok=True)
