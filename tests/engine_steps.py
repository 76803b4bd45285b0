"""Tiny real steps for tests of the engine: they read what they are given and write real files, in
milliseconds.

`KINDS` is a table of the engine's own form. `train` writes bytes that depend on its seed, its
settings and its teacher; `quantize` and `export` read the model before them; `evaluate` measures
sizes. A step can be told through the environment to wait (for signals) or to be killed, at a place
a test chooses.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from attar.errors import AttarError, StoppedError
from attar.progress import Progress
from attar.recipe.keys import Fingerprints
from attar.recipe.load import parse_recipe
from attar.recipe.outcome.summary import RunSummary
from attar.recipe.run import run_resolved
from attar.recipe.running.saved import Source
from attar.recipe.steps import STEPS
from attar.step import StepContext
from forked import Forked, start

KINDS = {name: replace(kind, function=f"engine_steps:{name}") for name, kind in STEPS.items()}
FINGERPRINTS = Fingerprints(
    model=lambda word, folder: f"model {word}",
    tokenizer=lambda word, folder: f"tokenizer {word}",
    data=lambda config, folder: f"data {config.source}",
)
RECIPE = """
name = "small"
seed = 3
[data.docs]
source = "stdlib_docs"
[steps.teacher]
run = "train"
model = "demo:minilm-l6"
data = "docs"
[steps.student]
run = "train"
model = { from = "teacher", keep_blocks = [1] }
teacher = "teacher"
data = "docs"
[steps.int8]
run = "quantize"
model = "student"
method = "minmax"
calibration = { data = "docs" }
[steps.scores]
run = "evaluate"
models = ["teacher", "student", "int8"]
data = "docs"
[steps.report]
run = "report"
"""


def run_small(folder: Path, text: str = RECIPE, quiet: bool = True, **settings: Any) -> RunSummary:
    """Run a recipe of these steps in `folder`, in this process."""
    overrides = settings.pop("overrides", ())
    recipe = parse_recipe(text, overrides)
    source = Source(folder.parent, text=text, overrides=tuple(overrides))
    progress = Progress(quiet=quiet)
    given = {"kinds": KINDS, "fingerprints": FINGERPRINTS, "progress": progress, "estimates": {}}
    return run_resolved(recipe, source, folder, **{**given, **settings})


def start_small(folder: Path, **environment: str) -> Forked:
    """Run the recipe in a process of its own, which a test can signal or kill.

    `at` waits at a place until the run is asked to stop; `crash` raises there. `recipe` is another
    text than `RECIPE`; with `fingerprints="rooms"` data and models are read for real.
    """
    names = {
        "at": "ENGINE_WAIT_AT",
        "crash": "ENGINE_CRASH_AT",
        "recipe": "ENGINE_RECIPE",
        "fingerprints": "ENGINE_FINGERPRINTS",
    }
    given = {names.get(name, name): value for name, value in environment.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    trace = folder.parent / "trace.txt"
    (folder.parent / "waiting").unlink(missing_ok=True)
    return start(__file__, folder, env={**os.environ, "ENGINE_TRACE": str(trace), **given})


def until_waiting(folder: Path, process: Forked) -> None:
    """Return once the process waits at its place."""
    deadline = time.monotonic() + 60
    while not (folder.parent / "waiting").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def places_reached(folder: Path) -> list[str]:
    """Every place that steps in other processes passed, in order."""
    return (folder.parent / "trace.txt").read_text().splitlines()


def train(config: Any, context: StepContext) -> dict[str, Any]:
    model = context.folder / "model"
    model.mkdir()
    taught_by = [(path / "model" / "weights").read_bytes() for path in context.inputs.values()]
    start = hashlib.sha256(repr((config.learning_rate, context.seed, taught_by)).encode()).digest()
    state = context.scratch / "state"
    for step in range(int(state.read_text()) if state.exists() else 0, 5):
        _happens(context, f"{context.name}:{step}")
        if context.should_stop():
            state.write_text(str(step))
            raise StoppedError(f"step {context.name!r} stopped at {step} of 5; its state is kept")
        state.write_text(str(step + 1))
    (model / "weights").write_bytes(start * 1000)
    return {"first_byte": start[0], "validation": {"accuracy": start[0] / 255}, "data": "docs"}


def quantize(config: Any, context: StepContext) -> dict[str, Any]:
    source = context.inputs[config.model] / "model" / "weights"
    _happens(context, f"{context.name}:0")
    (context.folder / "weights").write_bytes(source.read_bytes()[:100])
    return {"weight_bits": config.weight_bits}


export = quantize


def evaluate(config: Any, context: StepContext) -> dict[str, Any]:
    _happens(context, f"{context.name}:0")
    models = {}
    for word in config.models:
        folder = context.inputs[word]
        digest = hashlib.sha256(b"".join(p.read_bytes() for p in _files(folder))).digest()
        models[word] = {"accuracy": {"value": digest[0] / 255, "n": 10}, "size_mib": 1.0}
    (context.folder / "predictions.txt").write_text(repr(models))
    return {"models": models}


def report(config: Any, context: StepContext) -> dict[str, Any]:
    statistics = next(iter(context.inputs.values())).parent / "sweep.json"
    summed_up = " and the sweep" if statistics.exists() else ""
    (context.folder / "index.html").write_text(" ".join(context.inputs) + summed_up)
    return {}


def _files(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "result.json"
    ]


def _happens(context: StepContext, place: str) -> None:
    """Leave a trace of this place; wait there when the environment says so."""
    if trace := os.environ.get("ENGINE_TRACE"):
        with Path(trace).open("a") as stream:
            stream.write(place + "\n")
    if os.environ.get("ENGINE_WAIT_AT") == place:
        (Path(os.environ["ENGINE_TRACE"]).parent / "waiting").touch()
        deadline = time.monotonic() + 60
        while not context.should_stop() and time.monotonic() < deadline:
            time.sleep(0.01)
    if os.environ.get("ENGINE_CRASH_AT") == place:
        raise ZeroDivisionError("a bug, on purpose")


if __name__ == "__main__":
    import engine_steps

    try:
        text = os.environ.get("ENGINE_RECIPE", RECIPE)
        real = {"fingerprints": None} if "ENGINE_FINGERPRINTS" in os.environ else {}
        engine_steps.run_small(Path(sys.argv[1]), text, quiet=False, **real)
    except AttarError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
