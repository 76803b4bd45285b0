"""Row 19: SIGKILL twenty times at random in `tokenize`, `score` and `generate`: what comes out in
the end is what an undisturbed run gives, byte for byte.

Moments are drawn by work and not by time: a run is killed at the n-th call that its main thread
makes inside the step, so any line may be the last one, and a slow machine is killed at the same
places. Every other time only calls count that change a file, of which there are few. Every run is a
fork of one process that has loaded everything and done nothing.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import corpora
import forked

KILLS = 20
PIECES = 3
"""A run is killed within this part of the calls that an undisturbed run makes."""
WORK = {
    "corpus": ("attar.selection.tokenize", "write_shards"),
    "by_teacher": ("attar.selection.score", "fill_"),
    "written": ("attar.distillation.generate", "_Writer._write"),
}
"""Module and function where the work of a step begins, behind the loading of tokenizer and model,
which makes most of the calls; it ends when the step is published."""
RECIPE = corpora.RECIPE.partition("[steps.by_reference]")[0] + "batch_tokens = 128\n"
"""A shard is some batches, and kept after each of them."""
WRITTEN = """
[steps.written]
run = "generate"
model = "model"
data = "corpus"
prompt_tokens = 6
new_tokens = 12
batch_tokens = 256
shard_tokens = 1024
"""
RECIPES = {"written": corpora.RECIPE.partition("[steps.by_teacher]")[0] + WRITTEN}
FILE_CALLS = frozenset("open flush replace rename unlink link mkdir".split())
DEADLINE_S = 280


@pytest.mark.slow
@pytest.mark.parametrize("step", list(WORK))
def test_killed_twenty_times_at_random_the_bytes_are_the_same(tmp_path: Path, step: str) -> None:
    recipe = corpora.write_recipe(tmp_path, RECIPES.get(step, RECIPE))
    driver = forked.run(__file__, recipe, step, timeout=DEADLINE_S)
    assert driver.returncode == 0, driver.stderr
    killed = json.loads(driver.stdout)
    assert sum(killed.values()) == KILLS
    whole = _contents(tmp_path / "whole" / "selected" / step)
    assert len(whole) > 3
    for out in killed:
        assert _contents(tmp_path / out / "selected" / step) == whole
        assert not list((tmp_path / out / "selected" / ".scratch").iterdir())


def _contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "result.json"}


class _Calls:
    """Counts the calls inside one step, and ends the process at one of them."""

    def __init__(self, step: str, last: int | None, of_files: bool) -> None:
        self._last, self._of_files = last, of_files
        self.count = 0
        self.count_of_files = 0
        module, name = WORK[step]
        owner, _, function = name.rpartition(".")
        place: Any = importlib.import_module(module)
        place = getattr(place, owner) if owner else place
        work = getattr(place, function)

        def begin(*given: Any, **settings: Any) -> Any:
            sys.setprofile(self)
            return work(*given, **settings)

        setattr(place, function, begin)

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "return" and frame.f_code.co_qualname == "Engine.make":
            sys.setprofile(None)
        elif event in ("call", "c_call"):
            owner = getattr(function, "__self__", None)
            is_of_file = event == "c_call" and (
                function.__name__ in FILE_CALLS
                or (function.__name__ == "write" and isinstance(owner, io.BufferedWriter))
            )
            self.count += 1
            self.count_of_files += is_of_file
            if self._of_files:
                is_last = is_of_file and self.count_of_files == self._last
            else:
                is_last = self.count == self._last
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)


def _fork(
    recipe: Path, out: str, step: str, last: int | None, of_files: bool = False
) -> tuple[int, dict[str, Any]]:
    """Run the recipe in a process of its own; the signal that ended it, and what it did."""
    from attar.recipe.run import run_recipe

    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        with os.fdopen(read) as stream:
            said = stream.read()
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, json.loads(said or "{}")
    calls = _Calls(step, last, of_files)
    try:
        run_recipe(recipe, out=recipe.parent / out, quiet=True, estimates={})
        with os.fdopen(write, "w") as stream:
            found = {"calls": [calls.count, calls.count_of_files], "modules": list(sys.modules)}
            json.dump(found, stream)
        os._exit(0)
    finally:
        os._exit(1)


def _drive(recipe: Path, step: str) -> dict[str, int]:
    """Folder of runs → how often the run in it was killed before it ended well."""
    from attar.distillation import generate
    from attar.recipe.steps import STEPS
    from attar.selection import score

    score.KEEP_EVERY_S = generate.KEEP_EVERY_S = 0.0
    for run in ("tokenize", "score", "generate"):
        STEPS[run].resolve()
    draw = random.Random(f"{step} 1")  # sees a state file that is not replaced at once
    _, whole = _fork(recipe, "whole", step, None)
    for module in whole["modules"]:
        with suppress(Exception):  # made at run time, or another spelling of __main__
            importlib.import_module(module)
    _, whole = _fork(recipe, "counted", step, None)  # without the calls of imports
    killed: dict[str, int] = {}
    while sum(killed.values()) < KILLS:
        out, is_done = f"killed_{len(killed)}", False
        killed[out] = 0
        while not is_done:
            kills = sum(killed.values())
            of_files = kills % 2 == 1
            last = draw.randint(1, whole["calls"][of_files] // PIECES) if kills < KILLS else None
            ended_by, _ = _fork(recipe, out, step, last, of_files)
            assert ended_by in (0, signal.SIGKILL)
            is_done = ended_by == 0
            killed[out] += not is_done
    return killed


if __name__ == "__main__":
    print(json.dumps(_drive(Path(sys.argv[1]), sys.argv[2])))
