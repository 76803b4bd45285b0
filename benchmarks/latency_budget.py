"""Is a predicted latency kept? A model quantized under several limits, exported, and timed.

    python benchmarks/latency_budget.py MODEL --task sst2 --data FOLDER --limits 6 8 10

MODEL is the folder of a fine-tuned encoder, FOLDER holds <task>/<split>.jsonl.gz. The prediction
comes from one-Linear graphs (quantization/precision/latency.py), the real figure from `evaluate`,
where all models take turns: float and all-int8 stand beside the limits. A limit below what all of
int8 takes ends the run with a word: no plan keeps it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attar.artifacts import read_result
from record import table, write_page

ATTAR = str(Path(sys.executable).parent / "attar")
HEAD = ("limit ms", "Linears in int8", "predicted ms", "real ms, p50", "real over predicted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limits", type=float, nargs="+", required=True, help="milliseconds")
    parser.add_argument("--out", type=Path, help="keep the runs here; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        file = Path(temporary) / "limits.toml"
        file.write_text(recipe(arguments))
        subprocess.run([ATTAR, "run", str(file), "--out", str(out)], check=True)
        page = section(out / "limits", arguments.limits)
    write_page("latency-budget", "Is a predicted latency kept?", page)


def recipe(arguments: argparse.Namespace) -> str:
    """One quantize and one export step for each limit, float and int8 beside them."""
    model = arguments.model.resolve()
    lines = [
        'name = "limits"',
        f'[data.texts]\nsource = "glue"\ntask = "{arguments.task}"',
        f'path = "{arguments.data.resolve()}"',
        f'[steps.float]\nrun = "export"\nmodel = "{model}"\ndata = "texts"',
    ]
    quantized = {"int8": ""} | {
        name: f"budget = {{ max_latency_ms = {limit:g} }}"
        for name, limit in names_of(arguments.limits).items()
    }
    for name, budget in quantized.items():
        lines.append(
            f'[steps.q_{name}]\nrun = "quantize"\nmodel = "{model}"\nmethod = "percentile"\n'
            f'percentile = 0.9999\ncalibration = {{ data = "texts" }}\n{budget}'
        )
        lines.append(f'[steps.{name}]\nrun = "export"\nmodel = "q_{name}"')
    models = ", ".join(f'"{name}"' for name in ("float", *quantized))
    lines.append(f'[steps.scores]\nrun = "evaluate"\nmodels = [{models}]\ndata = "texts"')
    return "\n".join(lines) + "\n"


def names_of(limits: Sequence[float]) -> dict[str, float]:
    return {f"limit_{place}": limit for place, limit in enumerate(limits)}


def section(run: Path, limits: Sequence[float]) -> str:
    models = read_result(run / "scores").metrics["models"]
    rows = [row(run, models, name, limit) for name, limit in names_of(limits).items()]
    beside = "; ".join(f"{name} {real_ms(models, name):.2f} ms" for name in ("float", "int8"))
    return f"{table(HEAD, rows)}\n\nBeside them: {beside}."


def row(run: Path, models: Mapping[str, Any], name: str, limit: float) -> list[str]:
    budget = read_result(run / f"q_{name}").metrics["budget"]
    predicted, real = budget["predicted_latency_ms"], real_ms(models, name)
    latency = budget["latency"]
    return [
        f"{limit:g}",
        f"{latency['num_int8']} of {latency['num_linears']}",
        f"{predicted:.2f}",
        f"{real:.2f}",
        f"{real / predicted:.2f}",
    ]


def real_ms(models: Mapping[str, Any], name: str) -> float:
    """p50 of one text of 128 tokens."""
    timed = models[name]["latency"]
    return next(float(x["p50"]) for x in timed if (x["batch"], x["tokens"]) == (1, 128))


if __name__ == "__main__":
    main()
