"""Which quantization method suits this model and this data, at which bit width?

    python benchmarks/methods.py MODEL --data glue:sst2@FOLDER --widths 8 6 4

MODEL is a folder, a hub id or a demo model, fine-tuned for the data. Every cell is one `quantize`
step of one recipe, with the method's own defaults and the same calibration texts; one `evaluate`
step judges all of them on the same rows. Weights, embeddings and activations get one width.
Source: Outlier Suppression (Wei et al. 2022), table 14. `ptq_table.py` makes that table over tasks
and seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from attar.recipe.one_step import data_table
from record import table, write_page

ATTAR = str(Path(sys.executable).parent / "attar")
METHODS = ("minmax", "percentile", "omse", "step_size", "smoothquant", "os_plus")
METHODS += ("token_wise_clipping", "outlier_suppression", "auto")
LEARNING = ("step_size", "token_wise_clipping", "outlier_suppression")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", required=True, help="glue:TASK[@FOLDER], or a folder of files")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--widths", nargs="+", type=int, default=(8, 6, 4))
    parser.add_argument("--examples", type=int, default=256, help="calibration texts")
    parser.add_argument("--no-refine", action="store_true", help="leave out learning by gradient")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        recipe = Path(out) / "methods.toml"
        recipe.write_text(recipe_of(arguments), encoding="utf-8")
        subprocess.run([ATTAR, "run", str(recipe), "--out", out], check=True, stdout=sys.stderr)
        body = page(arguments, Path(out) / "methods")
    write_page("methods", "Which quantization method suits this model?", body)


def recipe_of(arguments: argparse.Namespace) -> str:
    here = Path(arguments.model)
    model = str(here.resolve()) if here.exists() else arguments.model
    data = data_table(arguments.data)
    if "path" in data:
        data["path"] = str(Path(data["path"]).resolve())
    tables = ['name = "methods"', "[data.texts]", *lines(data)]
    cells = {cell(m, width): (m, width) for width in arguments.widths for m in arguments.methods}
    for name, (method, width) in cells.items():
        settings: dict[str, Any] = {"run": "quantize", "model": model, "method": method}
        settings |= {"weight_bits": width, "activation_bits": width}
        if arguments.no_refine and method in LEARNING:
            settings["refine"] = False
        tables += [f"[steps.{name}]", *lines(settings)]
        tables += [f'calibration = {{ data = "texts", examples = {arguments.examples} }}']
    judged = {"run": "evaluate", "models": [model, *cells], "data": "texts", "speed": False}
    return "\n".join([*tables, "[steps.scores]", *lines(judged)]) + "\n"


def lines(settings: dict[str, Any]) -> list[str]:
    return [f"{name} = {json.dumps(value)}" for name, value in settings.items()]


def cell(method: str, width: int) -> str:
    return f"{method}-w{width}a{width}"


def page(arguments: argparse.Namespace, run: Path) -> str:
    scores = json.loads((run / "scores" / "result.json").read_text())["metrics"]["models"]
    (plain, *_) = scores.values()
    metric = next(name for name, found in plain.items() if isinstance(found, dict))
    rows = []
    for width in arguments.widths:
        for method in arguments.methods:
            name = cell(method, width)
            made = json.loads((run / name / "result.json").read_text())
            value = scores[name][metric]["value"]
            change = 100 * (value - plain[metric]["value"])
            decibels = made["metrics"]["logits_sqnr_db"]
            told = "exact" if decibels is None else f"{decibels:.1f}"
            row = (f"W{width}A{width}", method, f"{100 * value:.1f}", f"{change:+.1f}", told)
            rows.append((*row, f"{made['seconds']:.1f}"))
    head = ("width", "method", f"{metric} × 100", "to float", "SQNR of the logits, dB", "seconds")
    return f"Float: {100 * plain[metric]['value']:.1f}.\n\n{table(head, rows)}"


if __name__ == "__main__":
    main()
