"""Does minding a teacher's outlier dimensions help its student?

    python benchmarks/eofd_table.py TEACHERS --data FOLDER --work FOLDER --cells C.jsonl --scales
    python benchmarks/eofd_table.py TEACHERS --data FOLDER --work FOLDER --cells C.jsonl
    python benchmarks/eofd_page.py C.jsonl

TEACHERS holds <task>/model, fine-tuned classifiers (recipes/glue_teachers.toml makes them); --data
holds <task>/<split>.jsonl.gz; --work keeps the teachers' cached answers. The methods are the train
steps of recipes/eofd_minilm.toml, so a method written there is in the table; only data, epochs and
seed are changed here, and the learning rate where --rates asks for others. A cell is one task, one
method, one seed; it is appended to the file of cells, so that a stopped table goes on, and two
processes with different --tasks may share the file. Other rates or lengths belong in other files.
The state after the last step counts, judged once on the validation split: nothing is chosen by it.
Of every student it is also asked what became of the teacher's outlier dimensions, and what 8 and 6
bits cost it by the plainest method, min-max.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from attar.analysis.config import OutliersStep
from attar.analysis.run import analyze
from attar.progress import Progress, human_seconds
from attar.recipe.load import load_recipe
from attar.recipe.schema import Recipe
from attar.step import StepContext
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep
from attar.training.run import train
from attar.training.teaching.cache import cache
from ptq_table import METHOD_SETTINGS, TASKS, Bench, read_cells
from record import append_cell

RECIPE = Path(__file__).parent.parent / "recipes" / "eofd_minilm.toml"
TEACHER, DATA = "teacher", "text"
"""What the recipe calls them."""
BASELINE = "hidden"
"""The method whose difference to EOFD is the question."""
ROWS = {"sst2": 12000, "mrpc": 3668, "cola": 8551, "stsb": 5749}
EPOCHS = {"sst2": 1, "mrpc": 3, "cola": 3, "stsb": 3}
TOKENS = {"sst2": 13, "mrpc": 53, "cola": 11, "stsb": 31}
"""Of a training row on average: with rows and epochs, what a cell costs beside another."""
SECONDS_A_TOKEN = 3e-4
"""Until a cell was measured: 3 blocks of MiniLM in bf16 on one quiet thread, teacher cached."""
PREDICTIONS = {"forward_kl": 0.5, "cross_entropy": 0.5}
SCALE_TERMS: Sequence[Mapping[str, Any]] = (
    *({"kind": kind} for kind in PREDICTIONS),
    {"kind": "hidden_mse"},
    {"kind": "eofd", "power": 0.5},
)
SCALE_ROWS = 256
SCALES = "scales at step 0"
WIDTHS = (8, 6)
"""Of weights and activations of a student, once it is taught."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", help="default: all of the recipe")
    parser.add_argument("--rates", nargs="+", type=float, help="learning rates to choose from")
    parser.add_argument("--longer", type=int, default=1, help="times the epochs of the table")
    parser.add_argument("--max-steps", type=int, help="a trial: so many steps and no more")
    parser.add_argument("--scales", action="store_true", help="measure the losses at step 0, stop")
    arguments = parser.parse_args()
    benches = {task: Task(task, arguments) for task in arguments.tasks}
    if arguments.scales:
        for task in benches.values():
            append_cell(arguments.cells, task.scales())
        return
    methods = arguments.methods or [TEACHER, *methods_of(load_recipe(RECIPE))]
    # seed by seed: stopped early, the table has fewer seeds and no empty rows
    cells: list[dict[str, Any]] = [
        {"task": task, "method": method, "seed": seed} | rate | longer(arguments.longer)
        for seed, task, method, rate in product(
            arguments.seeds, arguments.tasks, methods, rates_of(arguments.rates)
        )
    ]
    for missing in waiting(cells, arguments.cells):
        append_cell(arguments.cells, missing | benches[missing["task"]].measure(**missing))


def methods_of(recipe: Recipe) -> list[str]:
    """The recipe's students."""
    steps = recipe.steps.items()
    return [name for name, step in steps if isinstance(step, TrainStep) and name != TEACHER]


def rates_of(rates: Sequence[float] | None) -> list[dict[str, float]]:
    """What a cell is told of its learning rate: nothing where the recipe's is taken."""
    return [{"learning_rate": rate} for rate in rates] if rates else [{}]


def longer(factor: int) -> dict[str, int]:
    """What a cell is told of its length: nothing where it is the table's."""
    return {"longer": factor} if factor != 1 else {}


def waiting(cells: Sequence[Mapping[str, Any]], file: Path) -> Iterator[dict[str, Any]]:
    """The cells that are not in the file, with the time they will still take."""
    done = {key_of(cell) for cell in read_cells(file)}
    left = [dict(cell) for cell in cells if key_of(cell) not in done]
    for place, cell in enumerate(left):
        seconds = sum(expected_seconds(c["task"], read_cells(file)) for c in left[place:])
        print(f"{len(left) - place} cells left, about {human_seconds(seconds)}", flush=True)
        yield cell


def expected_seconds(task: str, done: Sequence[Mapping[str, Any]]) -> float:
    """Of one cell: as its task took so far, else by its tokens."""
    same = [cell["seconds"] for cell in done if cell["task"] == task and "seconds" in cell]
    return (
        statistics.mean(same)
        if same
        else ROWS[task] * EPOCHS[task] * TOKENS[task] * (SECONDS_A_TOKEN)
    )


def key_of(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    given = (cell.get(name) for name in ("learning_rate", "longer"))
    return cell["task"], cell["method"], cell["seed"], *given


class Task:
    """One task: the recipe made for it, its teacher, and what the teacher said."""

    def __init__(self, task: str, arguments: argparse.Namespace) -> None:
        self.task, self.arguments = task, arguments
        path = json.dumps(str(arguments.data.resolve()))
        given = {"task": task, "train_rows": ROWS[task], "path": path}
        if arguments.scales:
            given["validation_rows"] = SCALE_ROWS  # looked at after the step, and not used
        overrides = [f"data.{DATA}.{name}={value}" for name, value in given.items()]
        self.recipe = load_recipe(RECIPE, overrides)
        self.inputs = {TEACHER: (arguments.teachers / task).resolve()}

    @cached_property
    def answers(self) -> dict[str, Path]:
        """Cache step → its folder."""
        steps = self.recipe.steps.items()
        return {name: self.cached(name, s) for name, s in steps if isinstance(s, CacheStep)}

    def cached(self, name: str, step: CacheStep) -> Path:
        """The teacher's answers, asked for once."""
        folder = (self.arguments.work / f"{self.task}-{name}").resolve()
        if not folder.is_dir():
            made = folder.with_name(f"{folder.name}.{os.getpid()}")
            cache(step, self.context(made, self.inputs))
            made.rename(folder)
        return folder

    def context(self, folder: Path, inputs: Mapping[str, Path]) -> StepContext:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder.with_name(f"{folder.name}.scratch")
        data, seed = dict(self.recipe.data), self.recipe.seed
        return StepContext(
            "eofd", folder, scratch, inputs, data, folder, Progress(quiet=True), seed=seed
        )

    def measure(
        self, task: str, method: str, seed: int, *, longer: int = 1, **rate: float
    ) -> dict[str, Any]:
        """Train one student, and look at what it became; the teacher is only looked at."""
        if method == TEACHER:
            return self.aftermath(self.inputs[TEACHER] / "model", seed)
        step = self.recipe.steps[method]
        assert isinstance(step, TrainStep)
        changed = {
            "epochs": longer * EPOCHS[task],
            "seed": seed,
            "max_steps": self.arguments.max_steps,
        }
        changed |= rate
        inputs = self.inputs | self.answers
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as temporary:
            context = self.context(Path(temporary) / "out", inputs)
            metrics = train(step.model_copy(update=changed), context)
            seconds = time.perf_counter() - began
            after = self.aftermath(context.folder / "model", seed)
        return after | {
            "steps": metrics["steps"],
            "precision": metrics["precision"],
            "seconds": seconds,
        }

    def aftermath(self, model: Path, seed: int) -> dict[str, Any]:
        """A model's score, its scores on a grid of few bits, and its outlier dimensions."""
        bench = Bench(model, self.task, self.arguments.data)
        plain = METHOD_SETTINGS["minmax"]
        found: dict[str, Any] = {"score": bench.float_score}
        for width in WIDTHS:
            found[f"W{width}A{width}"] = bench.measure(plain, width, seed)["score"]
        study = OutliersStep(model=str(model), data=DATA, criterion="activation_std")
        with tempfile.TemporaryDirectory() as temporary:
            seen = analyze(study, self.context(Path(temporary) / "out", self.inputs))
        (outliers,), (kurtosis,) = seen["outliers"].values(), seen["kurtosis"].values()
        return found | {"outliers": outliers, "kurtosis": kurtosis}

    def scales(self) -> dict[str, Any]:
        """Every loss before the first update, unweighted, on training rows."""
        step = self.recipe.steps[BASELINE]
        settings = step.model_dump(mode="json", by_alias=True, exclude={"losses", "epochs"})
        settings |= {"losses": SCALE_TERMS, "max_steps": 1, "batch_size": SCALE_ROWS}
        settings |= {"micro_batch_size": 32, "keep": "last", "teacher": TEACHER}
        with tempfile.TemporaryDirectory() as temporary:
            context = self.context(Path(temporary) / "out", self.inputs)
            train(TrainStep.model_validate_json(json.dumps(settings)), context)
            history = (context.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
        found = json.loads(history[0])["losses"]
        predictions = sum(weight * found[kind] for kind, weight in PREDICTIONS.items())
        cell = {"task": self.task, "method": SCALES, "seed": 0, "L_PRED": predictions}
        return cell | {name: value for name, value in found.items() if name not in PREDICTIONS}


if __name__ == "__main__":
    main()
