"""Which method keeps an encoder's quality at 8, 6, 5 and 4 bits, when nothing is trained?

    python benchmarks/ptq_table.py MODELS --data FOLDER --cells cells.jsonl
    python benchmarks/ptq_table.py MODELS --data FOLDER --cells cells.jsonl --render

MODELS holds <task>/model, fine-tuned classifiers (recipes/glue_teachers.toml makes them); FOLDER
holds <task>/<split>.jsonl.gz. Weights, embeddings and activations get the same width. Every cell is
one model, one width, one method and one choice of 256 calibration texts; it is measured on the
whole validation split, in torch, and appended to the file of cells, so that a stopped table goes
on. Methods that search see the calibration texts alone; one row chooses its percentile by the
validation split, as published, and says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from attar.data.config import DataConfig
from attar.data.load import load_data
from attar.data.tables import Split
from attar.data.tokenize import TextEncoder
from attar.models.load import LoadedModel, load_model
from attar.models.simulated.quantized import Quantizer
from attar.models.structure.ports import inserted, use_attar_attention_
from attar.numerics.metrics import METRICS
from attar.numerics.statistics import spread
from attar.progress import Progress
from attar.quantization.calibration.calibrate import (
    Batch,
    choose_examples,
    length_sorted,
    to_tensors,
)
from attar.quantization.config import QuantizeStep
from attar.quantization.ranges.token_wise_clipping import NUM_CANDIDATES
from attar.quantization.solve import prepare_, simulated, solve
from attar.step import StepContext
from record import append_cell, table, write_page

TASKS = {"sst2": "accuracy", "mrpc": "accuracy", "cola": "matthews", "stsb": "spearman"}
"""Task → the metric of its column, shown × 100."""
EXAMPLES, BATCH_SIZE = 256, 32
METHOD_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "minmax": {"method": "minmax"},
    "percentile": {"method": "percentile"},
    "percentile, best on validation": {"method": "percentile", "choose_by": "validation"},
    "omse": {"method": "omse", "on": "histogram"},
    "step_size from omse": {"method": "step_size"},
    "step_size from mean ± 3σ": {"method": "step_size", "start": "mean_3sigma"},
    "smoothquant": {"method": "smoothquant"},
    "os_plus": {"method": "os_plus"},
    "outlier_suppression": {"method": "outlier_suppression"},
    "auto": {"method": "auto"},
    "migration only": {"method": "minmax", "transform": "gamma"},
    "clipping only": {"method": "token_wise_clipping"},
    "auto without transform": {"method": "auto", "transform": "none"},
}
HERE = Path()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--widths", nargs="+", type=int, default=[4, 5, 6, 8])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHOD_SETTINGS))
    parser.add_argument("--render", action="store_true", help="write the page and stop")
    parser.add_argument("--page", default="ptq", help="name of the page")
    arguments = parser.parse_args()
    if arguments.render:
        cells = read_cells(arguments.cells)
        question = "Which method keeps an encoder's quality?"
        write_page(arguments.page, question, page(arguments.cells), cells)
        return
    done = {key_of(cell) for cell in read_cells(arguments.cells)}
    models = {task: arguments.models / task / "model" for task in arguments.tasks}
    benches = {task: Bench(folder, task, arguments.data) for task, folder in models.items()}
    # seed by seed: stopped early, the table has fewer seeds and no empty rows
    for seed, width, task, name in product(
        arguments.seeds, arguments.widths, arguments.tasks, arguments.methods
    ):
        key = {"task": task, "width": width, "method": name, "seed": seed}
        if key_of(key) in done:
            continue
        cell = key | benches[task].measure(METHOD_SETTINGS[name], width, seed)
        append_cell(arguments.cells, cell)


class Bench:
    """One fine-tuned model and its data."""

    def __init__(self, folder: Path, task: str, data_folder: Path) -> None:
        config = {"source": "glue", "task": task, "path": str(data_folder.resolve())}
        self.data: DataConfig = TypeAdapter(DataConfig).validate_python(config)
        data = load_data(self.data, HERE, name=task, seed=0)
        self.folder, self.task = folder, task
        self.train, validation = data.split("train"), data.split("validation")
        self.labels = np.asarray(validation.labels)
        loaded = self.load()
        assert loaded.task is not None
        self.encoder = TextEncoder.from_folder(
            folder, loaded.task.max_length, loaded.task.input_names
        )
        self.validation, self.order = self.batches(validation)
        self.float_score = self.score(loaded.model)

    def load(self) -> LoadedModel:
        loaded = load_model(self.folder, attention="eager")
        use_attar_attention_(loaded.model)
        return loaded

    def batches(self, split: Split) -> tuple[list[Batch], np.ndarray]:
        encoded = self.encoder.encode(split.texts)
        rows = length_sorted(encoded.lengths, BATCH_SIZE)
        return [to_tensors(encoded.batch(chosen)) for chosen in rows], np.concatenate(rows)

    @torch.inference_mode()
    def score(self, model: Any) -> float:
        logits = torch.cat([model(**batch).logits for batch in self.validation]).numpy()
        in_order = np.empty_like(logits)
        in_order[self.order] = logits
        is_score = self.labels.dtype.kind == "f"
        predictions = in_order[:, 0] if is_score else in_order.argmax(axis=1)
        return 100 * float(METRICS[TASKS[self.task]](predictions, self.labels))

    def measure(self, settings: Mapping[str, Any], width: int, seed: int) -> dict[str, Any]:
        """Quantize as the step does, and score."""
        loaded = self.load()
        config = TypeAdapter(QuantizeStep).validate_python(
            {
                "model": "float",
                "calibration": {"data": self.task, "examples": EXAMPLES},
                "weight_bits": width,
                "activation_bits": width,
                **settings,
            }
        )
        data = {self.task: self.data}
        context = StepContext("ptq", HERE, HERE, {}, data, HERE, Progress(quiet=True), seed=seed)
        rows = choose_examples(len(self.train), EXAMPLES, seed, self.task)
        batches = self.batches(self.train.rows(rows))[0]
        began = time.perf_counter()
        problem, solution = solve(prepare_(config, loaded, batches, context))
        seconds = time.perf_counter() - began
        quantized = simulated(problem.model, solution.weights)
        with inserted(quantized, {grid.site: Quantizer.of(grid) for grid in solution.grids}):
            score = self.score(quantized)
        details = solution.details
        return {
            "score": score,
            "float": self.float_score,
            "seconds": seconds,
            "threads": torch.get_num_threads(),
            "alpha": details.get("clipping", {}).get("alpha"),
            "start": details.get("ranges", {}).get("start"),
            "kept_epoch": details.get("fine", {}).get("kept_epoch"),
        }


def key_of(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["task"], cell["width"], cell["method"], cell["seed"]


def read_cells(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def page(file: Path) -> str:
    """A table a width: methods by tasks, mean ± sd over calibration seeds, and the mean of all."""
    cells = read_cells(file)
    parts = [
        "Weights, embeddings and activations at the same width; attention probabilities included. "
        f"{EXAMPLES} calibration texts; mean ± standard deviation over calibration seeds (n). "
        "SST-2 and MRPC accuracy, CoLA Matthews, STS-B Spearman, × 100. The last columns are the "
        "mean over the tasks, its 95 % interval over seeds, and the mean seconds of a calibration, "
        f"with {_threads(cells)}, beside other work.",
        f"{len(cells)} cells; one that is missing was not run yet, and a mean is over the tasks of "
        "its row alone: rows of a width with holes are not to be compared by it.",
        floats(cells),
    ]
    for width in sorted({cell["width"] for cell in cells}, reverse=True):
        parts += [f"## W{width}A{width}", width_table([c for c in cells if c["width"] == width])]
        parts += _alphas(cells, width)
    return "\n\n".join(parts)


def _threads(cells: Sequence[Mapping[str, Any]]) -> str:
    """What the cells say of their threads; the first ones were made with one and say nothing."""
    found = sorted({cell.get("threads", 1) for cell in cells})
    return " or ".join(map(str, found)) + (" thread" if found == [1] else " threads")


def _alphas(cells: Sequence[Mapping[str, Any]], width: int) -> Iterator[str]:
    """How much the coarse stage of the paper's method clipped at a width."""
    own = [c for c in cells if c["width"] == width and c["method"] == "outlier_suppression"]
    alphas = [cell["alpha"] for cell in own if cell["alpha"]]
    if alphas:
        yield (
            f"Of the coarse stage's {NUM_CANDIDATES[width]} α, from 1 downwards by hundredths, the "
            f"chosen was {min(alphas):.2f} at the lowest and {statistics.median(alphas):.2f} in "
            "the median."
        )


def floats(cells: Sequence[Mapping[str, Any]]) -> str:
    found = {cell["task"]: cell["float"] for cell in cells}
    shown = ", ".join(f"{task} {score:.1f}" for task, score in found.items())
    return f"Float: {shown}; mean {statistics.mean(found.values()):.1f}."


def width_table(cells: Sequence[Mapping[str, Any]]) -> str:
    tasks = [task for task in TASKS if any(cell["task"] == task for cell in cells)]
    head = ("method", *tasks, "mean", "95 % interval", "drop from float", "s")
    return table(head, list(_rows(cells, tasks)))


def _rows(cells: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Iterator[list[str]]:
    for name in METHOD_SETTINGS:
        own = [cell for cell in cells if cell["method"] == name]
        by_task = {task: [c for c in own if c["task"] == task] for task in tasks}
        if not own:
            continue
        row = [name, *(_mean(rows) for rows in by_task.values())]
        seeds = set.intersection(*({c["seed"] for c in rows} for rows in by_task.values()))
        means = [statistics.mean(c["score"] for c in own if c["seed"] == seed) for seed in seeds]
        if not means:
            yield [*row, "–", "–", "–", "–"]
            continue
        shared = [c for c in own if c["seed"] in seeds]
        drop = statistics.mean(c["float"] - c["score"] for c in shared)
        found = spread(means)
        half = interval_half(means)
        interval = "–" if half is None else f"{found.mean - half:.1f} … {found.mean + half:.1f}"
        seconds = statistics.mean(c["seconds"] for c in own)
        yield [*row, f"**{found.mean:.1f}**", interval, f"{drop:.1f}", f"{seconds:.0f}"]


def interval_half(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean by Student's t; None for one value."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    error = statistics.stdev(values) / len(values) ** 0.5
    return float(t.ppf(0.975, len(values) - 1) * error)


def _mean(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "–"
    scores = [row["score"] for row in rows]
    sd = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.1f}{sd} ({len(scores)})"


if __name__ == "__main__":
    main()
