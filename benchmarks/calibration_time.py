"""How long does it take to choose the ranges? Each calibrator on one fine-tuned model, in turn.

    python benchmarks/calibration_time.py FOLDER --data DATA           # FOLDER holds model/
    python benchmarks/calibration_time.py FOLDER --data DATA --tokens 128 --rounds 3

Times hold everything a method needs after the model is loaded: the float pass that collects
statistics, and the search. The floor is measured in the same rounds: one plain float pass, and one
quantized pass times the number of candidates. Methods take turns (A B C, A B C, …), so that a busy
moment hits all alike; a ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from attar.data.config import GlueData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.models.load import LoadedModel, load_model
from attar.models.simulated.qparams import Bits
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.sites import sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import (
    Batch,
    calibrate,
    choose_examples,
    length_sorted,
    to_tensors,
)
from attar.quantization.config import QuantizeStep
from attar.quantization.method import BitPlan, Problem
from attar.quantization.methods import METHODS
from attar.quantization.solve import simulated
from attar.quantization.weights.nearest import quantize_weights
from attar.step import StepContext
from record import table, write_page

CANDIDATES = 30
GOLDEN, COARSE = "OMSE, golden section, values", "token-wise clipping, coarse"
WHOLE, FLOOR = "the same, every candidate to its end", "floor"
METHOD_ROWS: dict[str, dict[str, Any]] = {
    GOLDEN: {"method": "omse", "search": "golden_section", "on": "values"},
    "OMSE, grid, values": {"method": "omse", "search": "grid", "on": "values"},
    "OMSE, grid, histogram (ours)": {"method": "omse", "search": "grid", "on": "histogram"},
    COARSE: {"method": "token_wise_clipping", "candidates": CANDIDATES},
    WHOLE: {"method": "token_wise_clipping", "candidates": CANDIDATES, "whole_curve": True},
    "percentile": {"method": "percentile"},
    "minmax": {"method": "minmax"},
}
PAPER_S = {"OMSE, grid, values": 1754, GOLDEN: 439.29, COARSE: 135.73}
"""Outlier Suppression (Wei et al. 2022), table 15; its grid has 30 steps, ours 100 widths."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an artifact with model/ of a fine-tuned model")
    parser.add_argument("--data", type=Path, required=True, help="folder of GLUE data")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, help="repeat or cut every text to this length")
    parser.add_argument("--without", nargs="*", default=[], help="methods left out, by their names")
    parser.add_argument("--no-page", action="store_true", help="print, and write no page")
    arguments = parser.parse_args()
    loaded, batches = load(arguments)
    rows = {name: row for name, row in METHOD_ROWS.items() if name not in arguments.without}
    seconds: dict[str, list[float]] = {name: [] for name in (*rows, "float pass", "quantized pass")}
    with tempfile.TemporaryDirectory() as temporary:
        made = make_problems(rows, arguments, loaded, batches, Path(temporary))
        for problem in made.values():
            plain_pass(problem)  # the first pass allocates
            break
        for _ in range(arguments.rounds):
            for name, problem in made.items():
                seconds[name].append(timed(lambda p=problem: choose(p)))
            seconds["float pass"].append(timed(lambda p=problem: plain_pass(p)))
            seconds["quantized pass"].append(quantized_pass(problem))
    num_tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    body = page(seconds, len(batches), num_tokens, arguments)
    if arguments.no_page:
        print(body)
    else:
        suffix = f"-{arguments.tokens}" if arguments.tokens else ""
        write_page(f"calibration-time{suffix}", "How long does it take to choose the ranges?", body)


def load(arguments: argparse.Namespace) -> tuple[LoadedModel, list[Batch]]:
    loaded = load_model(arguments.folder / "model", attention="eager")
    use_attar_attention_(loaded.model)
    assert loaded.task is not None, "the model must be fine-tuned"
    settings = GlueData(task=arguments.task, path=str(arguments.data.resolve()))
    train = load_data(settings, Path(), name=arguments.task, seed=0).split("train")
    chosen = choose_examples(len(train), arguments.examples, 0, arguments.task)
    task = loaded.task
    encoder = TextEncoder.from_folder(loaded.folder, task.max_length, task.input_names)
    encoded = encoder.encode(train.rows(chosen).texts)
    rows = length_sorted(encoded.lengths, 32)
    batches = [to_tensors(encoded.batch(batch)) for batch in rows]
    if arguments.tokens:
        batches = [of_length(batch, arguments.tokens) for batch in batches]
    return loaded, batches


def of_length(batch: Batch, tokens: int) -> Batch:
    """Every text repeated until it fills `tokens`, so that every computed token is a real one."""
    rows: list[dict[str, torch.Tensor]] = []
    for mask, *columns in zip(batch["attention_mask"], *batch.values(), strict=True):
        places = torch.arange(tokens) % int(mask.sum())
        real = mask.nonzero()[:, 0][places]
        rows.append({name: column[real] for name, column in zip(batch, columns, strict=True)})
    return {name: torch.stack([row[name] for row in rows]) for name in batch}


def make_problems(
    rows: dict[str, dict[str, Any]],
    arguments: argparse.Namespace,
    loaded: LoadedModel,
    batches: list[Batch],
    folder: Path,
) -> dict[str, Problem]:
    context = StepContext("bench", folder, folder, {}, {}, folder, Progress(quiet=True))
    bits = arguments.bits
    plan = BitPlan(Bits(weight=bits, embedding=bits, activation=bits))
    on_grid = simulated(loaded.model, quantize_weights(loaded.model, plan.weight))
    seen = calibrate(loaded.model, sites_of(loaded.model), batches, context)
    shared = {"model": "m", "calibration": {"data": "d"}, "activation_bits": bits}
    adapter = TypeAdapter(QuantizeStep)
    return {
        name: Problem(
            adapter.validate_python({**shared, **row}),
            *(context, loaded.task, plan, loaded.model, on_grid, seen),
        )
        for name, row in rows.items()
    }


def choose(problem: Problem) -> None:
    """The float pass and the search, with nothing known from before."""
    old = problem.calibration
    seen = calibrate(problem.model, list(old.statistics), old.batches, old.context)
    parts = {name: getattr(problem, name) for name in ("config", "context", "task", "plan")}
    fresh = Problem(**parts, model=problem.model, on_grid=problem.on_grid, calibration=seen)
    METHODS[problem.config.method].ranges(fresh)


def plain_pass(problem: Problem) -> None:
    with torch.inference_mode():
        for batch in problem.calibration.batches:
            problem.model(**batch)


def quantized_pass(problem: Problem) -> float:
    """Seconds of one pass with quantizers everywhere; their grids are made beforehand."""
    seen = problem.calibration
    ranges = {site: (found.low, found.high) for site, found in seen.statistics.items()}
    grids = problem.grids(ranges)
    fresh = calibrate(problem.model, [], seen.batches[:1], seen.context)
    fresh.batches = seen.batches
    return timed(lambda: fresh.quantized_logits(problem.on_grid, grids))


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def page(
    seconds: dict[str, list[float]],
    num_batches: int,
    num_tokens: int,
    arguments: argparse.Namespace,
) -> str:
    passes = zip(seconds["float pass"], seconds["quantized pass"], strict=True)
    seconds[f"{FLOOR}: 1 float pass + {CANDIDATES} quantized passes"] = floors = [
        one + CANDIDATES * other for one, other in passes
    ]
    rows = [
        (
            name,
            f"{statistics.median(found):.2f}",
            f"{min(found):.2f} … {max(found):.2f}",
            PAPER_S.get(name, ""),
        )
        for name, found in seconds.items()
    ]
    body = table(["what", "median s", "min … max", "paper's s (BERT-base)"], rows)
    body += (
        f"\n\n{arguments.examples} examples of {arguments.task}, {num_tokens} real tokens in "
        f"{num_batches} batches, {arguments.bits} bits, {arguments.rounds} rounds, "
        f"{torch.get_num_threads()} threads.\n"
    )
    pairs = [(COARSE, WHOLE), (WHOLE, None), (COARSE, None), (GOLDEN, COARSE)]
    for one, other in pairs:
        under = floors if other is None else seconds.get(other, [])
        if seconds.get(one) and under:
            found = [a / b for a, b in zip(seconds[one], under, strict=True)]
            body += f"\n- {one} ÷ {other or FLOOR}: {statistics.median(found):.2f}"
            body += f" ({min(found):.2f} … {max(found):.2f})"
    paper = PAPER_S[GOLDEN] / PAPER_S[COARSE]
    return body + f"\n\nPaper: golden section ÷ coarse stage = {paper:.1f}."


if __name__ == "__main__":
    main()
