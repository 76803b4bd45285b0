"""What does training through the grids save at 4 bits, and what is the start worth?

    python benchmarks/qat_table.py MODELS --data FOLDER --cells cells.jsonl
    python benchmarks/qat_table.py MODELS --data FOLDER --cells cells.jsonl --render

MODELS holds <task>/model, fine-tuned classifiers; FOLDER holds <task>/<split>.jsonl.gz. Every cell
is one run of the step `quantize` with equal steps, rates and texts in all methods of a task. Cells
carry a version; those of another version are measured again, and are not shown. The
state kept is the best of three looks at the validation split, as in training: figures of the best
are a little flattering, in every row alike. Cells are appended to a file, so a stopped table goes
on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from attar.data.config import DataConfig
from attar.progress import Progress
from attar.quantization.config import QuantizeStep
from attar.quantization.run import quantize
from attar.step import StepContext
from ptq_table import TASKS, Bench, read_cells
from record import append_cell, table, write_page

VERSION = 2
"""Raised when what a row computes changes. 2: values are clipped before they are rounded, weights
of LSQ+ have all integers of their bits, LSQ+ starts from least squared error."""
START = "token_wise_clipping"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "PACT from min-max": {"method": "pact", "start": "minmax", "distil": False},
    "PACT": {"method": "pact", "start": "mean_3sigma", "distil": False},
    "LSQ+ from mean ± 3σ": {"method": "lsq_plus", "start": "mean_3sigma", "distil": False},
    "LSQ+": {"method": "lsq_plus", "start": "omse", "distil": False},
    "LSQ+ with KD": {"method": "lsq_plus", "start": "omse", "distil": True},
    "gamma migration, coarse start, LSQ+ (the paper's without KD)": {
        "method": "lsq_plus",
        "start": START,
        "distil": False,
        "transform": "gamma",
    },
    "gamma migration, coarse start, LSQ+, KD (the paper's)": {
        "method": "lsq_plus",
        "start": START,
        "distil": True,
        "transform": "gamma",
    },
    "OS+ transform, auto start, LSQ+, KD (ours)": {
        "method": "lsq_plus",
        "start": "auto",
        "distil": True,
        "transform": "os_plus",
    },
    "OS+ transform, auto start, LSQ+ (ours without KD)": {
        "method": "lsq_plus",
        "start": "auto",
        "distil": False,
        "transform": "os_plus",
    },
}
"""LSQ+ starts as it was published, from least squared error; PACT was published with a start of its
own for ReLU's outputs alone. From min-max PACT hardly moves in few steps: its ends learn from the
values that they clip, and there none is clipped."""
ROWS = {"sst2": 6000, "mrpc": None, "cola": None, "stsb": None}
"""Training rows, so that the table fits its time; None: all."""
BATCH_SIZES = {"sst2": 32, "mrpc": 16, "cola": 16, "stsb": 16}
"""16 on small sets, as in the paper."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--widths", nargs="+", default=["4-4-4"], help="weights-embeddings-values")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--render", action="store_true", help="write the page and stop")
    arguments = parser.parse_args()
    if arguments.render:
        question = "What does training through the grids save?"
        write_page("qat", question, page(arguments.cells), _cells(arguments.cells))
        return
    done = {_key(cell) for cell in _cells(arguments.cells)}
    for seed in arguments.seeds:
        for widths in arguments.widths:
            for task in arguments.tasks:
                for name in arguments.methods:
                    key = {"task": task, "width": widths, "method": name, "seed": seed}
                    if _key(key) in done:
                        continue
                    cell = (
                        key
                        | {"version": VERSION}
                        | run(arguments, task, METHODS[name], widths, seed)
                    )
                    append_cell(arguments.cells, cell)


def run(
    arguments: argparse.Namespace, task: str, method: Mapping[str, Any], widths: str, seed: int
) -> dict[str, Any]:
    """One run of the step; its score is that of the state it kept."""
    model = (arguments.models / task / "model").resolve()
    table_of_data = {"source": "glue", "task": task, "path": str(arguments.data.resolve())}
    if ROWS[task] is not None:
        table_of_data["train_rows"] = ROWS[task]
    data = TypeAdapter(DataConfig).validate_python(table_of_data)
    weight, embedding, activation = map(int, widths.split("-"))
    steps = arguments.steps
    config = TypeAdapter(QuantizeStep).validate_python(
        {
            "model": str(model),
            "calibration": {"data": task},
            "weight_bits": weight,
            "embedding_bits": embedding,
            "activation_bits": activation,
            "epochs": steps * BATCH_SIZES[task] / _rows(task, arguments.data),
            "batch_size": BATCH_SIZES[task],
            "learning_rate": arguments.learning_rate,
            **method,
        }
    )
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        (here / "out").mkdir()
        context = StepContext(
            *("qat", here / "out", here / "scratch", {}, {task: data}, here),
            Progress(quiet=True),
            seed=seed,
        )
        began = time.perf_counter()
        metrics = quantize(config, context)
        seconds = time.perf_counter() - began
    kept = metrics["training"]["validation"]
    bench = Bench(model, task, arguments.data)
    return {
        "score": 100 * kept[TASKS[task]],
        "float": bench.float_score,
        "steps": metrics["training"]["steps"],
        "seconds": seconds,
    }


def _rows(task: str, data_folder: Path) -> int:
    import gzip

    if ROWS[task] is not None:
        return int(ROWS[task] or 0)
    with gzip.open(data_folder / task / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        return sum(1 for _ in lines)


def _cells(file: Path) -> list[dict[str, Any]]:
    """The cells of this version."""
    return [cell for cell in read_cells(file) if cell.get("version", 1) == VERSION]


def _key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["task"], cell["width"], cell["method"], cell["seed"]


def page(file: Path) -> str:
    """A table for each set of widths."""
    cells = _cells(file)
    if not cells:
        raise SystemExit(f"{file} has no cells of version {VERSION}; measure some first")
    steps = " or ".join(map(str, sorted({cell["steps"] for cell in cells})))
    tasks = [task for task in TASKS if any(cell["task"] == task for cell in cells)]
    sizes = ", ".join(
        f"{BATCH_SIZES[task]} texts ({task}, {ROWS[task] or 'all'} rows)" for task in tasks
    )
    parts = [
        "Weights-embeddings-activations; attention probabilities included. "
        f"{steps} steps of {sizes} in every row. One learning rate for all, not searched. Metrics "
        "and scale are those of the table without training; mean ± standard deviation over n "
        "seeds, of calibration texts and order. The last columns are the mean over the tasks and "
        "the mean seconds of a run, with 1 thread, beside other work.",
    ]
    for widths in dict.fromkeys(cell["width"] for cell in cells):
        own = [cell for cell in cells if cell["width"] == widths]
        head = ("method", *tasks, "mean", "n", "s")
        parts += [f"## {widths}", table(head, _table_rows(own, tasks))]
    return "\n\n".join(parts)


def _table_rows(cells: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[list[str]]:
    floats = {cell["task"]: cell["float"] for cell in cells}
    shown = [f"{floats[task]:.1f}" if task in floats else "–" for task in tasks]
    rows = [["float", *shown, f"{statistics.mean(floats.values()):.1f}", "", ""]]
    for name in METHODS:
        own = [cell for cell in cells if cell["method"] == name]
        scores = {task: [c["score"] for c in own if c["task"] == task] for task in tasks}
        if not own:
            continue
        whole = all(scores.values())
        mean = statistics.mean(statistics.mean(s) for s in scores.values()) if whole else None
        seconds = statistics.mean(c["seconds"] for c in own)
        total = "–" if mean is None else f"**{mean:.1f}**"
        count = str(min(map(len, scores.values())))
        rows.append([name, *map(_spread, scores.values()), total, count, f"{seconds:.0f}"])
    return rows


def _spread(scores: Sequence[float]) -> str:
    if len(scores) < 2:
        return "".join(f"{score:.1f}" for score in scores) or "–"
    return f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}"


if __name__ == "__main__":
    main()
