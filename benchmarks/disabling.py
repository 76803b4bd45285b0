"""What are the outlier dimensions of fine-tuned encoders worth, against random ones?

    python benchmarks/disabling.py MODELS --data FOLDER

Each folder of MODELS holds <task>/model, fine-tuned classifiers; FOLDER holds
<task>/<split>.jsonl.gz. Each task is one study of the command line, on validation rows; its table
is read from the `study.json` it leaves. Random choices are the same in all tasks where the models
have the same outliers, so the mean over tasks is taken choice by choice.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from record import table, write_page

ATTAR = str(Path(sys.executable).parent / "attar")
NORMAL = 1.96
"""Half a 95 % interval in standard errors."""
WORDS = {"zero": "set to zero", "mean": "set to the mean"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "mrpc", "cola", "stsb"])
    parser.add_argument("--criterion", default="gamma_3sigma")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    found = {task: study(task, arguments) for task in arguments.tasks}
    parts = ["\n\n".join(["## Task by task", tasks_table(found)])]
    for task, content in found.items():
        facts = content["facts"]
        said = [row["sentence"] for row in content["summary"]] or [facts["found"]]
        parts.append("\n\n".join([f"## {task}", f"Disabled: {facts['disabled']}.", *said]))
    if len(found) > 1 and all(content["rows"] for content in found.values()):
        parts.append("\n\n".join(["## All tasks together", together(found)]))
    write_page("disabling", "What are outlier dimensions worth?", "\n\n".join(parts))


def study(task: str, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Run one study and read what it found."""
    folders = [folder / task / "model" for folder in arguments.models]
    model = next(folder for folder in folders if folder.is_dir()).resolve()
    data = f"glue:{task}@{arguments.data.resolve()}"
    settings = {
        "num_rows": arguments.rows,
        "null_seeds": arguments.seeds,
        "criterion": f'"{arguments.criterion}"',
    }
    with tempfile.TemporaryDirectory() as out:
        command = [ATTAR, "analyze", "--model", str(model), "--data", data, "--study", "disabling"]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        subprocess.run([*command, "--out", out, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        (file,) = Path(out).rglob("study.json")
        return json.loads(file.read_text(encoding="utf-8"))


def tasks_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Damages in points."""
    rows = []
    for task, content in found.items():
        facts = content["facts"]
        for row in content["summary"]:
            rows.append(
                (
                    task,
                    f"{facts['metric']} {100 * facts['full']:.1f}",
                    WORDS[row["replacement"]],
                    interval(row["outlier"], *row["outlier_ci95"]),
                    interval(row["null"], *row["null_ci95"]),
                    interval(row["excess"], *row["excess_ci95"]),
                    ratio(row),
                    f"{row['as_bad']} of {row['choices']}",
                )
            )
    head = ("task", "full", "dimensions", "outliers", "random", "difference", "ratio", "as bad")
    return table(head, rows) + "\n\nIn points, with 95 % intervals."


def interval(value: float, low: float, high: float) -> str:
    return f"{points(value)} ({points(low)} … {points(high)})"


def points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f}"  # no minus at zero


def ratio(row: Mapping[str, Any]) -> str:
    low, high = row["ratio_ci95"]
    value = "–" if row["ratio"] is None else f"{row['ratio']:.1f}"
    ends = f"{'–' if low is None else f'{low:.1f}'} … {'∞' if high is None else f'{high:.1f}'}"
    return f"{value} ({ends})"


def together(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The mean over tasks, as the paper's last column: of the outliers, and choice by choice of the
    random ones."""
    lines = []
    for word in WORDS:
        runs = {
            task: {r["run"]: r["damage"] for r in content["rows"] if r["replacement"] == word}
            for task, content in found.items()
        }
        tasks = list(runs)
        outlier = fmean(runs[task]["outlier"] for task in tasks)
        names = [name for name in runs[tasks[0]] if name != "outlier"]
        choices = [fmean(runs[task][name] for task in tasks) for name in names]
        excess = [(row["excess"], *row["excess_ci95"]) for row in summaries(found, word)]
        mean = fmean(value for value, _, _ in excess)
        se = math.hypot(*((high - low) / 2 / NORMAL for _, low, high in excess)) / len(excess)
        as_bad = sum(choice >= outlier for choice in choices)
        lines.append(
            f"- {WORDS[word]}: outliers {points(outlier)} points on average of {len(tasks)} "
            f"tasks, random choices {points(fmean(choices))} (standard deviation over choices "
            f"{points(stdev(choices))}, largest {points(max(choices))}); difference "
            f"{interval(mean, mean - NORMAL * se, mean + NORMAL * se)}; {as_bad} of {len(choices)} "
            f"choices as bad, p = {(1 + as_bad) / (1 + len(choices)):.2g}."
        )
    paper = (
        "The paper (T5, zero-shot, zeros, one random choice of 4): T5-Small 2.8 against −1.0 "
        "points, T5-3B 4.3 against 0.3, T5-11B 14.7 against 0.8."
    )
    return "\n".join(lines) + f"\n\n{paper}"


def summaries(found: Mapping[str, Mapping[str, Any]], word: str) -> Sequence[Mapping[str, Any]]:
    rows = [row for content in found.values() for row in content["summary"]]
    return [row for row in rows if row["replacement"] == word]


if __name__ == "__main__":
    main()
