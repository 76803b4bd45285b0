"""How long does each quantization method take to find the ranges of all activations?

    python benchmarks/seconds.py MODEL --data glue:sst2@FOLDER --rounds 3

    transform     what the method moves between layers first, with the proof that nothing changed
    calibration   the float pass that every method needs, with its statistics
    search        what the method does with them: quantized passes, or a search in stored values

Left out: the rounding of weights (to nearest for every method) and learning by gradient. Methods
take turns, round by round; the median counts. Times in float passes do not depend on the machine.
Source: Outlier Suppression (Wei et al. 2022), table 15.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from pydantic import TypeAdapter

from attar.data.config import DataConfig
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.models.load import load_model
from attar.models.sources.references import resolve_model
from attar.models.structure.ports import use_attar_attention_
from attar.progress import Progress
from attar.quantization.calibration.texts import calibration_texts
from attar.quantization.config import QuantizeStep
from attar.quantization.methods import method_of
from attar.quantization.solve import prepare_, simulated
from attar.quantization.weights.nearest import quantize_weights
from attar.recipe.one_step import data_table
from attar.step import StepContext
from record import table, write_page

METHODS = ("minmax", "percentile", "omse", "token_wise_clipping")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a fine-tuned model")
    parser.add_argument("--data", required=True, help="glue:TASK[@FOLDER], or a folder of files")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        body = measured(arguments, Path(folder))
    write_page("seconds", "How long does each method take to find its ranges?", body)


def measured(arguments: argparse.Namespace, folder: Path) -> str:
    context = StepContext("bench", folder, folder, {}, {}, Path.cwd(), Progress(quiet=True))
    loaded = load_model(resolve_model(arguments.model, {}, Path.cwd()), attention="eager")
    assert loaded.task is not None, "the model must be fine-tuned"
    use_attar_attention_(loaded.model)
    settings = TypeAdapter(DataConfig).validate_python(data_table(arguments.data))
    data = load_data(settings, Path.cwd(), name="texts", seed=0)
    encoder = TextEncoder.from_folder(
        loaded.folder, loaded.task.max_length, loaded.task.input_names
    )
    chosen = {"examples": arguments.examples, "batch_size": None, "seed": None}
    batches = calibration_texts(loaded, encoder, data, context, **chosen).batches
    float_pass = median([plain_pass(loaded.model, batches) for _ in range(arguments.rounds + 1)])
    timed: dict[str, list[tuple[float, float, float]]] = {name: [] for name in arguments.methods}
    for _ in range(arguments.rounds):
        for name, seen in timed.items():
            config = TypeAdapter(QuantizeStep).validate_python(
                {"run": "quantize", "model": arguments.model, "method": name}
                | {"weight_bits": arguments.bits, "activation_bits": arguments.bits}
                | {"calibration": {"data": "texts", "examples": arguments.examples}}
            )
            copied = replace(loaded, model=copy.deepcopy(loaded.model))
            started = time.perf_counter()
            problem, _ = prepare_(config, copied, batches, context)
            calibration = problem.calibration.seconds
            transform = time.perf_counter() - started - calibration
            weights = quantize_weights(copied.model, problem.plan.weight)
            problem = replace(problem, on_grid=simulated(copied.model, weights))
            started = time.perf_counter()
            method_of(config).ranges(problem)
            search = time.perf_counter() - started
            seen.append((transform, calibration, search))
    rows = []
    for name, rounds in timed.items():
        parts = [median(part) for part in zip(*rounds, strict=True)]
        rows.append((name, sum(parts), *parts, sum(parts) / float_pass))
    rows.sort(key=lambda row: row[1])
    shown = [(name, *(f"{figure:.2f}" for figure in figures)) for name, *figures in rows]
    head = ("method", "seconds", "transform", "calibration", "search", "float passes")
    told = f"{arguments.examples} examples, {arguments.bits} bits, {arguments.rounds} rounds"
    told += f", {torch.get_num_threads()} threads; a float pass takes {float_pass:.2f} s."
    return f"{told}\n\n{table(head, shown)}"


def plain_pass(model: torch.nn.Module, batches: object) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:  # pyright: ignore
            model(**{name: x for name, x in batch.items() if isinstance(x, torch.Tensor)})
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
