"""What do fewer optimizer steps cost the model of `attar new DATA`, in the size quick?

    python benchmarks/quick_steps.py --data DATA --out FOLDER

For three kinds of texts (news by topic, sentences by sentiment, docstrings by area of the library),
600 rows are drawn as a newcomer's train.csv, and 1,000 others judge the models. `attar new` writes
the recipe; then it runs as written except for the epochs, which follow from the number of steps as
in `attar.recipe.starting.sizes`, and without timing. Seed s draws the rows and the head. DATA holds
ag_news/ and sst2/. A stopped run goes on with the same command.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from attar.data.config import StdlibDocsData
from attar.data.load import load_data
from attar.numerics.paired import paired
from attar.recipe.run import run_recipe
from attar.recipe.starting.sizes import SIZES
from attar.report.sections.seed_comparisons import signed
from record import table, write_page

ROWS, JUDGED = 600, 1000
MODELS = ("teacher", "student", "deploy")
FILES = {
    "news": ("ag_news/train_10k.jsonl.gz", "text"),
    "sentiment": ("sst2/train.jsonl.gz", "sentence"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=(100, 60))
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    asked = parser.parse_args()
    scores: dict[tuple[str, int, int], dict[str, float]] = {}
    for seed in asked.seeds:
        for kind in (*FILES, "docs"):
            folder = asked.out / f"{kind}{seed}"
            recipe = written_recipe(kind, seed, asked.data, folder)
            for steps in asked.steps:
                scores[kind, seed, steps] = measured(recipe, steps, seed, folder / str(steps))
                print(kind, seed, steps, scores[kind, seed, steps], flush=True)
    write_page("quick-steps", "How many steps does a quick first model need?", page(scores))


def rows_of(kind: str, data: Path) -> Iterator[tuple[str, str]]:
    """Texts and labels."""
    if kind == "docs":
        docs = load_data(StdlibDocsData(source="stdlib_docs"), data, name="docs").split("train")
        yield from (
            (text, f"area {label}") for (text,), label in zip(docs.texts, docs.labels, strict=True)
        )
        return
    file, column = FILES[kind]
    with gzip.open(data / file, "rt", encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            yield row[column], f"label {row['label']}"


def written_recipe(kind: str, seed: int, data: Path, folder: Path) -> Path:
    recipe = folder / "first.toml"
    if recipe.exists():
        return recipe
    folder.joinpath("data").mkdir(parents=True, exist_ok=True)
    rows = list(dict(rows_of(kind, data)).items())
    random.Random(seed).shuffle(rows)
    for name, part in (("train", rows[:ROWS]), ("validation", rows[ROWS : ROWS + JUDGED])):
        with (folder / "data" / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *part])
    command = ["new", str(folder / "data"), "--size", "quick", "--output", str(recipe)]
    subprocess.run([sys.executable, "-m", "attar.cli", *command], check=True)
    return recipe


def measured(recipe: Path, steps: int, seed: int, out: Path) -> dict[str, float]:
    epochs = replace(SIZES["quick"], steps=steps).epochs(ROWS)
    given = [f"seed={seed}", f"steps.teacher.epochs={epochs}", f"steps.student.epochs={2 * epochs}"]
    given += ["steps.scores.speed=false", "steps.scores.memory=false"]
    run = run_recipe(recipe, overrides=given, out=out, enforce_gates=False).folder
    models = json.loads((run / "scores" / "result.json").read_text())["metrics"]["models"]
    return {name: models[name]["accuracy"]["value"] for name in MODELS}


def page(scores: dict[tuple[str, int, int], dict[str, float]]) -> str:
    cells = list(dict.fromkeys(key[:2] for key in scores))
    most, *fewer = dict.fromkeys(steps for _, _, steps in scores)
    rows = [
        [kind, str(steps), *(f"{100 * mean:.1f}" for mean in means)]
        for kind in dict.fromkeys(kind for kind, _ in cells)
        for steps in (most, *fewer)
        for means in [
            [
                statistics.mean(scores[k, s, steps][name] for k, s in cells if k == kind)
                for name in MODELS
            ]
        ]
    ]
    said = []
    for steps in fewer:
        for name in MODELS:
            both = ([scores[(*cell, n)][name] for cell in cells] for n in (steps, most))
            found = paired(*both)
            mean, low, high = (signed(x, "accuracy") for x in (found.mean, found.low, found.high))
            said.append(f"{name}, {steps} steps against {most}: {mean} points ({low} to {high})")
    return "\n\n".join(
        [
            f"{ROWS} rows to learn from, {JUDGED:,} others to judge by; accuracy in percent, mean "
            f"over {len(dict.fromkeys(s for _, s in cells))} draws.",
            table(["texts", "steps", *MODELS], rows),
            f"Paired over the {len(cells)} draws: {'; '.join(said)}.",
        ]
    )


if __name__ == "__main__":
    main()
