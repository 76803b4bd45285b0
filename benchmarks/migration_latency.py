"""Do the factors of a transformed model, on shortcuts and behind GELUs, cost a kernel, and time?

    python benchmarks/migration_latency.py MODEL --task sst2 --data FOLDER

The same float model, min-max ranges at 8 bits, with each transform; both runtimes. What is executed
is counted by type in OpenVINO's runtime model and in ONNX Runtime's optimized graph; latencies take
turns, and a ratio is the median of the ratios of the rounds to the model without a transform.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from pydantic import TypeAdapter

from attar.cores import usable_cores
from attar.export.config import ExportStep
from attar.export.run import export
from attar.models.deployed.cpu_runtimes import OnnxRuntime
from attar.models.deployed.runtimes import MODEL_FILES
from attar.quantization.config import QuantizeStep
from attar.quantization.run import quantize
from peers_int8 import ANY_PARITY, Bench, Entrant, entrant, in_turns
from record import table, write_page

TRANSFORMS = ("none", "gamma", "os_plus", "auto")
"""A factor on the shortcut; a factor and a shift; the same and factors behind GELUs."""
FORMATS = ("openvino", "onnxruntime")


def kernels(form: str, folder: Path, entrant: Entrant) -> Counter[str]:
    """How often each type of operation is executed."""
    if form == "openvino":
        nodes = entrant.runtime.compiled.get_runtime_model().get_ordered_ops()
        types = [node.get_rt_info()["layerType"].astype(str) for node in nodes]
        return Counter(kind for kind in types if kind not in ("Const", "Input", "Output"))
    optimized = folder / "optimized.onnx"
    OnnxRuntime(folder / MODEL_FILES["onnxruntime"][0], usable_cores(), optimized)
    return Counter(node.op_type for node in onnx.load(optimized).graph.node)


def made(bench: Bench, transform: str, form: str) -> tuple[Entrant, Counter[str], dict[str, Any]]:
    quantized = bench.scratch / f"{transform}-int8"
    if not quantized.is_dir():
        calibration = {"data": "data", "examples": bench.arguments.examples}
        config = TypeAdapter(QuantizeStep).validate_python(
            {
                "method": "minmax",
                "transform": transform,
                "model": "float",
                "calibration": calibration,
            }
        )
        quantize(config, bench.context(quantized.name, {"float": bench.folder}))
    context = bench.context(f"{transform}-{form}", {"int8": quantized})
    step = ExportStep(model="int8", format=form, data="data", parity=ANY_PARITY)  # pyright: ignore[reportArgumentType]
    metrics = export(step, context)
    opened = entrant(transform, form, context.folder)
    return opened, kernels(form, context.folder, opened), metrics


def section(bench: Bench, form: str, rounds: int) -> str:
    found = [made(bench, transform, form) for transform in TRANSFORMS]
    entrants = [each[0] for each in found]
    times = in_turns(entrants, bench, rounds)
    plain = found[0][1]
    rows = []
    for opened, counts, metrics in found:
        fusion, parity = metrics["fusion"], metrics["parity"]
        other = {kind: counts[kind] - plain[kind] for kind in {*counts, *plain}}
        more = ", ".join(f"{n:+d} {kind}" for kind, n in sorted(other.items()) if n)
        cells = [
            opened.name,
            f"{fusion['num_int8']} of {fusion['num_matmuls']}",
            f"{counts.total()} ({more or 'the same'})",
            f"{parity['relative_error']:.2f}",
        ]
        for by_name in times.values():
            first = by_name[entrants[0].name]
            ratios = [a / b for a, b in zip(by_name[opened.name], first, strict=True)]
            cells.append(
                f"{statistics.median(by_name[opened.name]):.2f}; {statistics.median(ratios):.3f} "
                f"({min(ratios):.3f} … {max(ratios):.3f})"
            )
        rows.append(cells)
    head = ["transform", "products in int8", "operations executed", "parity error"]
    head += [f"ms at {texts} × 128; share of none's (min … max)" for texts in times]
    return f"## {form}\n\n{table(head, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--data", type=Path, required=True, help="holds <task>/<split>.jsonl.gz")
    parser.add_argument("--examples", type=int, default=256, help="rows that calibrate")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print only, write no page")
    arguments = parser.parse_args()
    arguments.rows = 1
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments, Path(scratch))
        body = "\n\n".join(section(bench, form, arguments.rounds) for form in FORMATS)
    if arguments.dry:
        print(body)
    else:
        write_page("migration-latency", "What do the factors of a transformed model cost?", body)


if __name__ == "__main__":
    main()
