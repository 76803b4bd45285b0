"""Documents to a student by one recipe, and the same bytes when every step is killed on the way."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

import corpora
import tiny_recipe

CORPUS_STEPS = ("corpus", "by_teacher", "by_reference", "kept")


def _artifacts(run: Path) -> dict[str, bytes]:
    files = (file for step in CORPUS_STEPS for file in sorted((run / step).iterdir()))
    return {str(f.relative_to(run)): f.read_bytes() for f in files if f.name != "result.json"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.write_recipe(tmp_path_factory.mktemp("selected"))


@pytest.mark.slow
@pytest.mark.e2e
def test_a_student_is_trained_on_what_was_selected(recipe: Path) -> None:
    done = tiny_recipe.attar("run", recipe, "--out", recipe.parent / "whole")
    assert done.returncode == 0, done.stderr
    run = recipe.parent / "whole" / "selected"
    assert (run / "report" / "index.html").is_file()
    again = tiny_recipe.attar("run", recipe, "--out", recipe.parent / "whole")
    assert again.stderr.count("reused") == 7


@pytest.mark.slow
@pytest.mark.e2e
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(recipe: Path) -> None:
    draw = random.Random(0)
    steps = ["--set", "steps.corpus.shard_tokens=1024"]
    command = tiny_recipe.command("run", recipe, "--out", recipe.parent / "killed", *steps)
    for _ in range(4):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(draw.uniform(1.5, 4.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = tiny_recipe.attar("run", recipe, "--out", recipe.parent / "killed", *steps)
    assert done.returncode == 0, done.stderr
    whole = tiny_recipe.attar("run", recipe, "--out", recipe.parent / "whole", *steps)
    assert whole.returncode == 0, whole.stderr
    killed, undisturbed = (recipe.parent / each / "selected" for each in ("killed", "whole"))
    assert _artifacts(killed) == _artifacts(undisturbed)
