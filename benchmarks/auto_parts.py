"""What does each part of `auto` do to texts that no stage saw?

    python benchmarks/auto_parts.py MODELS --data FOLDER --tasks sst2 cola --widths 8 4

MODELS holds <task>/model, FOLDER holds <task>/<split>.jsonl.gz, as for ptq_table.py. A part is
judged by the mean squared difference between the logits of the quantized and the float model, on
512 training rows that did not calibrate and on the validation split; no label is read. A few
texts make a quarter of such a mean, so the median over texts stands beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from pydantic import TypeAdapter
from torch import Tensor

from attar.models.simulated.quantized import Quantizer
from attar.models.structure.ports import inserted
from attar.progress import Progress
from attar.quantization.calibration.calibrate import Batch, choose_examples
from attar.quantization.config import QuantizeStep
from attar.quantization.method import Problem
from attar.quantization.solve import prepare_, simulated, solve
from attar.quantization.transforms.rules import TRANSFORMS, at_norms, choose
from attar.quantization.weights.rules import WEIGHT_RULES
from attar.step import StepContext
from ptq_table import EXAMPLES, HERE, TASKS, Bench
from record import table, write_page

UNSEEN = 512
HEAD = ("task", "bits", "part", "unseen: mean", "median", "validation: mean", "median")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--widths", nargs="+", type=int, default=[8, 4])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows: list[Sequence[object]] = []
    for task in arguments.tasks:
        bench = Bench(arguments.models / task / "model", task, arguments.data)
        parts = Parts(bench, arguments.seed)
        for width in arguments.widths:
            for name, errors in (*parts.weights(width), *parts.wholes(width)):
                rows.append((task, width, name, *(f"{error:.5f}" for error in errors)))
                print(*rows[-1], flush=True)
    write_page(
        "auto-parts",
        "What does each part of `auto` do to texts that no stage saw?",
        "Squared difference of the logits from float, mean over classes; "
        f"{EXAMPLES} calibration texts, {UNSEEN} unseen training rows.\n\n{table(HEAD, rows)}",
    )


class Parts:
    """One model, the texts it is calibrated by, and those it is judged by."""

    def __init__(self, bench: Bench, seed: int) -> None:
        chosen = choose_examples(len(bench.train), EXAMPLES + UNSEEN, seed, bench.task)
        seen, unseen = (bench.train.rows(c) for c in (chosen[:EXAMPLES], chosen[EXAMPLES:]))
        self.bench, self.seed = bench, seed
        self.calibration = bench.batches(seen)[0]
        self.judges = (bench.batches(unseen)[0], bench.validation)
        model = bench.load().model
        self.floats = [logits(model, batches) for batches in self.judges]

    def prepared(self, width: int, **settings: Any) -> Problem:
        """A float model, transformed and calibrated."""
        task = self.bench.task
        config = TypeAdapter(QuantizeStep).validate_python(
            {
                "model": "float",
                "calibration": {"data": task, "examples": EXAMPLES},
                "weight_bits": width,
                "activation_bits": width,
                "method": "auto",
                **settings,
            }
        )
        data = {task: self.bench.data}
        context = StepContext(
            "parts", HERE, HERE, {}, data, HERE, Progress(quiet=True), seed=self.seed
        )
        return prepare_(config, self.bench.load(), self.calibration, context)[0]

    def weights(self, width: int) -> Iterator[tuple[str, list[float]]]:
        """Weights alone, activations in float, nothing transformed."""
        prepared = self.prepared(width, transform="none")
        model = prepared.model
        gptq = WEIGHT_RULES["gptq"](model, self.calibration, prepared.context)
        rounders = {
            "weights alone, nearest": WEIGHT_RULES["nearest"](model, [], prepared.context),
            "weights alone, GPTQ, tables one by one": replace(gptq, reads=None),
            "weights alone, GPTQ, tables made good": gptq,
        }
        for name, rounder in rounders.items():
            rounded = simulated(model, rounder.quantize(model, prepared.plan.weight))
            yield name, self.errors(rounded)

    def wholes(self, width: int) -> Iterator[tuple[str, list[float]]]:
        """Weights and activations, by the whole method."""
        norms = at_norms(lambda site, rows, error, config: choose(site, rows, error))
        transforms: Mapping[str, Any] = {
            "no transform": TRANSFORMS["none"],
            "transform at norms": norms,
            "transform at norms and behind GELUs": TRANSFORMS["auto"],
        }
        for name, transform in transforms.items():
            with patch.dict(TRANSFORMS, {"auto": transform}):  # pyright: ignore[reportArgumentType]
                problem, solution = solve(self.prepared(width))
            quantizers = {grid.site: Quantizer.of(grid) for grid in solution.grids}
            with inserted(problem.on_grid, quantizers):
                yield f"all, {name}", self.errors(problem.on_grid)

    def errors(self, model: Any) -> list[float]:
        """Mean and median over the texts of each judge."""
        found: list[float] = []
        for batches, floats in zip(self.judges, self.floats, strict=True):
            lost = (logits(model, batches) - floats).square().mean(1)
            found += [float(lost.mean()), float(lost.median())]
        return found


@torch.inference_mode()
def logits(model: Any, batches: Sequence[Batch]) -> Tensor:
    return torch.cat([model(**batch).logits for batch in batches])


if __name__ == "__main__":
    main()
