"""Does a folded feed-forward give a better point on accuracy against latency than fewer blocks?

    python benchmarks/folded_students.py --glue GLUE --out FOLDER

The recipe is recipes/small_t5/minilm_folded.toml on SST-2: MiniLM-L6 is fine-tuned once; its
students are three of six blocks, or six blocks whose feed-forwards are one matrix or a chain that
starts from least squares, and the chain is folded; all are distilled alike, exported in int8 and
timed in turns. Students are made for several seeds, in one run: the same command goes on where it
was stopped, and the run's report has the chart, which is copied beside the page.

`--shrink` is a trial of a minute: few rows, one seed, no page.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.numerics.paired import paired
from attar.recipe.run import run_recipe
from attar.report.reading import base_name
from attar.report.sections.seed_comparisons import signed
from record import table, write_chart, write_page

RECIPE = Path(__file__).parent.parent / "recipes" / "small_t5" / "minilm_folded.toml"
ROWS = 12_000
STUDENTS = ("three_blocks", "one_map", "chain")
SWEPT = (*STUDENTS, "folded")
BASELINE = "three_blocks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path, required=True, help="holds sst2/<split>.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shrink", action="store_true")
    asked = parser.parse_args()
    run = run_recipe(RECIPE, overrides=overrides(asked), out=asked.out, enforce_gates=False).folder
    body = page(models_of(run))
    if asked.shrink:
        print(body)
        return
    if chart := chart_of(run):
        body += "\n\n" + write_chart("folded-students", chart)
    write_page("folded-students", "A folded feed-forward, or fewer blocks?", body)


def overrides(asked: argparse.Namespace) -> list[str]:
    rows, seeds = (96, 1) if asked.shrink else (ROWS, asked.seeds)
    data = {"source": "glue", "task": "sst2", "path": str(asked.glue.resolve()), "train_rows": rows}
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in data.items())
    sweep = f"{{ steps = {json.dumps(STUDENTS)}, seed = {list(range(seeds))} }}"
    given = [f"data.docs={{ {fields} }}", f"sweep={sweep}"]
    steps = ("teacher", *STUDENTS)
    given += [f"steps.{step}.epochs=1" for step in steps]
    if asked.shrink:
        given += [f"steps.{step}.max_length=32" for step in steps]
        given += [f"steps.{step}_int8.calibration.examples=32" for step in QUANTIZED]
        # models that have hardly learned flip more labels than the limit
        given += [f"steps.{step}_openvino.parity.max_label_flips=1" for step in QUANTIZED]
        given += ["steps.scores.memory=false"]
        given += ["steps.scores.speed={ batch_sizes = [1], tokens = 32, rounds = 3, calls = 1 }"]
    return given


QUANTIZED = ("teacher", "three_blocks", "one_map", "folded")


def models_of(run: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Model → seed → what the evaluation measured; the teacher's seed is 0."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for folder in sorted(run.glob("scores*")):
        metrics = json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"]
        seed = int(folder.name.rpartition("seed=")[2] or 0)
        for name, figures in metrics["models"].items():
            found.setdefault(base_name(name), {})[seed] = figures
    return found


def page(models: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    head = ["model", "accuracy", "sd", "ms, batch 1", "faster", "MFLOP", "MiB"]
    return "\n\n".join(
        [
            f"SST-2, {len(models[BASELINE])} seeds. Accuracy in percent; latency is the median of "
            "the seeds' p50, faster than the float teacher in the same rounds.",
            table(head, [row(name, runs) for name, runs in models.items()]),
            *(verdicts(models, suffix) for suffix in ("", "_openvino")),
        ]
    )


def row(name: str, runs: Mapping[int, Mapping[str, Any]]) -> list[str]:
    scores = [100 * figures["accuracy"]["value"] for figures in runs.values()]
    p50 = [figures["latency_ms"]["p50"] for figures in runs.values()]
    faster = [figures["latency_ms"]["speedup"]["median"] for figures in runs.values()]
    first = next(iter(runs.values()))
    return [
        f"{name} ({first['form']})",
        f"{statistics.mean(scores):.1f}",
        f"{statistics.stdev(scores):.1f}" if len(scores) > 1 else "",
        f"{statistics.median(p50):.2f}",
        f"{statistics.median(faster):.2f}×",
        f"{first['flops'] / 1e6:.0f}",
        f"{first['size_mib']:.1f}",
    ]


def verdicts(models: Mapping[str, Mapping[int, Mapping[str, Any]]], suffix: str) -> str:
    """The students without feed-forwards of their own against the one with fewer blocks, seed by
    seed: accuracy, and latency in the same rounds."""
    theirs, said = models[BASELINE + suffix], []
    for name in ("one_map", "folded"):
        pairs = [(run, theirs[seed]) for seed, run in models[name + suffix].items()]
        found = paired(*([pair[i]["accuracy"]["value"] for pair in pairs] for i in (0, 1)))
        times = [ours["latency_ms"]["p50"] / other["latency_ms"]["p50"] for ours, other in pairs]
        mean, low, high = (signed(each, "accuracy") for each in (found.mean, found.low, found.high))
        between = f" ({low} to {high})" if low else ""
        said.append(
            f"{name}{suffix} {mean} points{between}, {found.verdict}, in "
            f"{statistics.median(times):.2f} of its time"
        )
    return f"Against `{BASELINE}{suffix}`: {'; '.join(said)}."


def chart_of(run: Path) -> str | None:
    """Accuracy against latency, as the run's report draws it first."""
    html = (run / "report" / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<div class="wide">(<svg.*?</svg>)</div>', html, re.DOTALL)
    return None if found is None else found[1]


if __name__ == "__main__":
    main()
