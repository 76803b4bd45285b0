"""What do few bits cost a tagger, or a model that answers questions, and how fast are they?

    python benchmarks/tagging_qa.py tagging  --data names=D/wnut17 --out FOLDER
    python benchmarks/tagging_qa.py question --data asked=D/subjqa --data clean=D/xquad_en \\
        --out FOLDER

One recipe: the model is fine-tuned on the first data, quantized by every method at every width with
every choice of calibration texts, and judged on the validation split of all data, whose files are
of words and tags, or in SQuAD's form. The first choice of every method at 8 bits and the float
model are exported to both runtimes and timed in turns against torch. A stopped run goes on: the
same command reuses what is in --out, and --minutes stops it by itself with everything saved. With
other --rounds only the timing is done again, so all else may be made on a busy machine. Nothing is
trained but the float model, so the tables have the shape of those for SQuAD in Outlier Suppression
(Wei et al. 2022, tables 1 and 14): F1 and exact match by method and width.

To try it: --rows 64 --methods minmax --widths 8 --seeds 0 --epochs 0.1 --rounds 3 --dry. --model
names another model to fine-tune (default: demo:minilm-l6).
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from record import table, write_page

ATTAR = str(Path(sys.executable).parent / "attar")
OBJECTIVES = {"tagging": "token_classification", "question": "question_answering"}
METHODS = ("minmax", "percentile", "outlier_suppression", "auto")
RUNTIMES = ("openvino", "onnxruntime")
FLOAT = "float"
ANY_PARITY = "{ max_relative_error = 1e6, max_label_flips = 1.0 }"
"""The benchmark itself measures how near the models are; a tagger that was trained for a moment
changes many tags."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=OBJECTIVES)
    parser.add_argument("--data", action="append", required=True, help="NAME=FOLDER, train first")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="demo:minilm-l6")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--widths", nargs="+", type=int, default=(8, 6, 4))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--examples", type=int, default=256, help="calibration texts")
    parser.add_argument("--max-length", type=int, default=None)
    parser.add_argument("--rows", type=int, default=None, help="of train, and of validation")
    parser.add_argument("--validation-rows", type=int, default=None, help="if other than --rows")
    parser.add_argument("--minutes", type=float, default=None, help="stop then; None: when done")
    parser.add_argument("--dry", action="store_true", help="print only, write no page")
    parser.add_argument("--rounds", type=int, default=15, help="of timing")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipe = arguments.out / f"{arguments.task}.toml"
    recipe.write_text(recipe_of(arguments), encoding="utf-8")
    command = [ATTAR, "run", str(recipe), "--out", str(arguments.out)]
    with subprocess.Popen(command, stdout=sys.stderr) as running:
        try:
            code = running.wait(None if arguments.minutes is None else 60 * arguments.minutes)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGINT)
            code = running.wait()
    if code:
        raise SystemExit(code)  # 75: stopped with everything saved
    body = page(arguments, arguments.out / arguments.task)
    if arguments.dry:
        print(body)
    else:
        question = f"What do fewer bits cost a model for {OBJECTIVES[arguments.task]}?"
        write_page(arguments.task, question, body)


def cells(arguments: argparse.Namespace) -> dict[str, tuple[str, int, int]]:
    """Step → method, width and seed of its calibration texts."""
    every = product(arguments.methods, arguments.widths, arguments.seeds)
    return {f"{method}-w{width}-{seed}": (method, width, seed) for method, width, seed in every}


def recipe_of(arguments: argparse.Namespace) -> str:
    folders = dict(one.split("=", 1) for one in arguments.data)
    first, objective = next(iter(folders)), OBJECTIVES[arguments.task]
    length = arguments.max_length or (128 if arguments.task == "tagging" else 384)
    tables = [f'name = "{arguments.task}"', "seed = 0"]
    for name, folder in folders.items():
        there = joined(arguments.out, folders[first], name, folder) if name != first else folder
        path = str(Path(there).resolve())
        data: dict[str, Any] = {"source": "files", "path": path, "objective": objective}
        judged = arguments.validation_rows or arguments.rows
        limits = {"train_rows": arguments.rows, "validation_rows": judged}
        data |= {key: value for key, value in limits.items() if value is not None}
        data |= {"rows_seed": 0} if arguments.rows else {}
        tables += [f"[data.{name}]", *lines(data)]
    train: dict[str, Any] = {"run": "train", "model": arguments.model, "data": first}
    train |= {"epochs": arguments.epochs, "learning_rate": arguments.learning_rate}
    tables += [f"[steps.{FLOAT}]", *lines(train | {"max_length": length})]
    for name, (method, width, seed) in cells(arguments).items():
        step = {"run": "quantize", "model": FLOAT, "method": method}
        tables += [
            f"[steps.{name}]",
            *lines(step | {"weight_bits": width, "activation_bits": width}),
        ]
        calibration = f'data = "{first}", examples = {arguments.examples}, seed = {seed}'
        tables += [f"calibration = {{ {calibration} }}"]
    exported = [
        name for name, cell in cells(arguments).items() if cell[1:] == (8, arguments.seeds[0])
    ]
    for source, runtime in product((FLOAT, *exported), RUNTIMES):
        step = {"run": "export", "model": source, "format": runtime, "data": first}
        tables += [f"[steps.{source}-{runtime}]", *lines(step), f"parity = {ANY_PARITY}"]
    deployed = [f"{source}-{runtime}" for source, runtime in product((FLOAT, *exported), RUNTIMES)]
    for name in folders:
        judged = {"run": "evaluate", "models": [FLOAT, *cells(arguments)], "data": name}
        tables += [f"[steps.bits-{name}]", *lines(judged | {"speed": False, "memory": False})]
    tables += ["[steps.speed]", *lines({"run": "evaluate", "models": [FLOAT, *deployed]})]
    tables += [f'data = "{first}"', "memory = false"]
    tables += [
        f"speed = {{ batch_sizes = [1, 8], tokens = {length}, rounds = {arguments.rounds} }}"
    ]
    return "\n".join(tables) + "\n"


def joined(out: Path, first: str, name: str, folder: str) -> Path:
    """A folder with the first data's train file and the validation file of data that may have
    no other."""
    made = out.resolve() / f"data-{name}"
    made.mkdir(exist_ok=True)
    for split, source in (("train", first), ("validation", folder)):
        (file,) = Path(source).resolve().glob(f"{split}.*")
        link = made / file.name
        if not link.exists():
            link.symlink_to(file)
    return made


def lines(settings: dict[str, Any]) -> list[str]:
    return [f"{name} = {json.dumps(value)}" for name, value in settings.items()]


def page(arguments: argparse.Namespace, run: Path) -> str:
    names = [one.split("=", 1)[0] for one in arguments.data]
    parts = [
        f"{arguments.model}, fine-tuned on {names[0]} for {arguments.epochs:g} epochs; "
        f"{arguments.examples} calibration texts, {len(arguments.seeds)} choices of them "
        "(mean ± standard deviation). Weights, embeddings and activations at one width; metrics "
        "× 100."
    ]
    for name in names:
        result = json.loads((run / f"bits-{name}" / "result.json").read_text())["metrics"]
        parts += [f"## {name}: {result['data']['rows']:,} rows", bits_table(arguments, result)]
    speed = json.loads((run / "speed" / "result.json").read_text())["metrics"]
    return "\n\n".join([*parts, "## In the runtimes", speed_table(speed)])


def bits_table(arguments: argparse.Namespace, result: dict[str, Any]) -> str:
    metrics = result["data"]["metrics"][:2]
    columns = [(width, metric) for width in arguments.widths for metric in metrics]
    models = result["models"]
    head = ("method", *(f"W{width}A{width} {metric}" for width, metric in columns))
    rows = [[FLOAT, *(f"{100 * models[FLOAT][metric]['value']:.1f}" for _, metric in columns)]]
    for method in arguments.methods:
        row = [method]
        for width, metric in columns:
            values = [
                100 * models[f"{method}-w{width}-{seed}"][metric]["value"]
                for seed in arguments.seeds
            ]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            row.append(f"{statistics.mean(values):.1f}{spread}")
        rows.append(row)
    return table(head, rows)


def speed_table(result: dict[str, Any]) -> str:
    metric = result["data"]["metrics"][0]
    against = {
        found["model"]: found
        for found in result["differences"]
        if found["metric"] == metric and found["against"] == FLOAT
    }
    rows = []
    for name, model in result["models"].items():
        found, times = against.get(name), model["latency"]
        drop = "–" if found is None else f"{100 * found['value']:.2f} ({_interval(found['ci95'])})"
        first = result["models"][FLOAT]["latency"]
        each = [
            f"{time['p50']:.1f} ({base['p50'] / time['p50']:.2f}×)"
            for time, base in zip(times, first, strict=True)
        ]
        rows.append(
            [name, f"{100 * model[metric]['value']:.1f}", drop, *each, f"{model['size_mib']:.1f}"]
        )
    sizes = [f"ms, batch {time['batch']}" for time in result["models"][FLOAT]["latency"]]
    return table(("model", metric, "minus float (95 %)", *sizes, "MiB"), rows)


def _interval(ends: list[float]) -> str:
    return " to ".join(f"{100 * end:.2f}" for end in ends)


if __name__ == "__main__":
    main()
