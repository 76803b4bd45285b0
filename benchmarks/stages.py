"""What does each stage cost and keep? A recipe run from nothing, its stages side by side.

    python benchmarks/stages.py demo                        # recipes/demo.toml, needs no data
    python benchmarks/stages.py sst2 mrpc --data FOLDER     # FOLDER holds <task>/<split>.jsonl.gz

Every figure is read from what `evaluate` measured: models take turns, so a busy moment hits all of
them alike; a ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from attar.artifacts import read_result
from attar.progress import human_seconds
from record import table, write_page

REPOSITORY = Path(__file__).parent.parent
ATTAR = str(Path(sys.executable).parent / "attar")
HEAD = (
    "model",
    "form",
    "quality (95 % interval)",
    "ms at 1 × 128, p50 (p95)",
    "faster than the float student (min … max of rounds)",
    "ms at 8 × 128, p50",
    "MiB",
    "smaller than the float student",
    "peak MiB",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+", help="names of files in recipes/")
    parser.add_argument("--data", type=Path, help="folder of GLUE data for sst2 and mrpc")
    parser.add_argument("--out", type=Path, help="keep the runs here; default: a temporary folder")
    parser.add_argument("--note", default="", help="what else a reader of the figures must know")
    arguments = parser.parse_args()
    sections = []
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        for recipe in arguments.recipes:
            exit_code = run(recipe, out, arguments.data)
            sections.append(section(recipe, out / recipe, exit_code))
    write_page(
        "-".join(arguments.recipes), "What does each stage cost and keep?", "\n\n".join(sections)
    )


def run(recipe: str, out: Path, data: Path | None) -> int:
    command = [ATTAR, "run", str(REPOSITORY / "recipes" / f"{recipe}.toml"), "--out", str(out)]
    if data is not None:
        command += ["--set", f"data.{recipe}.path='{data.resolve()}'"]
    finished = subprocess.run(command, check=False)
    if finished.returncode not in (0, 6):  # a missed gate is a result too
        raise SystemExit(f"{recipe}: attar run ended with exit code {finished.returncode}")
    return finished.returncode


def section(recipe: str, folder: Path, exit_code: int) -> str:
    scores = read_result(folder / "scores").metrics
    models = scores["models"]
    rows = [row(name, models) for name in models]
    steps = [read_result(file.parent) for file in sorted(folder.glob("*/result.json"))]
    times = ", ".join(f"{step.step} {human_seconds(step.seconds)}" for step in steps)
    fusions = [
        f"{step.step}: {step.metrics['fusion']['num_int8']} of "
        f"{step.metrics['fusion']['num_matmuls']} MatMuls in int8, parity error "
        f"{step.metrics['parity']['relative_error']:.2f} of the quantization error, "
        f"{100 * step.metrics['parity']['label_flips']:.1f} % of labels flipped"
        for step in steps
        if step.run == "export"
    ]
    gates = "missed" if exit_code else "passed"
    return "\n\n".join(
        [
            f"## {recipe}",
            f"All steps in {human_seconds(sum(step.seconds for step in steps))} ({times}); "
            f"gates {gates}.",
            table(HEAD, rows),
            "\n".join(f"- {difference['sentence']}" for difference in scores["differences"]),
            "\n".join(f"- {fusion}" for fusion in fusions),
        ]
    )


def row(name: str, models: dict[str, Any]) -> tuple[str, ...]:
    model, student = models[name], models["student"]
    metric = next(key for key in ("accuracy", "matthews", "pearson") if key in model)
    quality = model[metric]
    low, high = quality["ci95"]
    one, eight = timed(model, 1), timed(model, 8)
    rounds = zip(timed(student, 1)["round_p50"], one["round_p50"], strict=True)
    ratios = [theirs / ours for theirs, ours in rounds]
    return (
        name,
        model["form"],
        f"{100 * quality['value']:.1f} ({100 * low:.1f} … {100 * high:.1f}, n = {quality['n']:,})",
        f"{one['p50']:.2f} ({one['p95']:.2f})",
        f"{statistics.median(ratios):.2f} × ({min(ratios):.2f} … {max(ratios):.2f})",
        f"{eight['p50']:.1f}",
        f"{model['size_mib']:.1f}",
        f"{student['size_mib'] / model['size_mib']:.2f} ×",
        f"{model['peak_memory_mib']:.0f}",
    )


def timed(model: dict[str, Any], batch: int) -> dict[str, Any]:
    """The latency of texts of 128 tokens."""
    return next(x for x in model["latency"] if (x["batch"], x["tokens"]) == (batch, 128))


if __name__ == "__main__":
    main()
