"""A copy of GLUE's tasks in which some training rows stand in for the validation split.

    python benchmarks/held_out.py DATA OUT

DATA holds <task>/train.jsonl.gz. For choosing a setting, such as a learning rate, before the real
validation split is looked at. They are a seeded tenth, at most 1,000; the rest keeps its order.
A teacher that was fine-tuned on the whole split has seen them: scores on them are flattering, and
only their order among settings means something.
"""

from __future__ import annotations

import argparse
import gzip
import random
from pathlib import Path

from ptq_table import TASKS

SHARE = 0.1
MOST = 1000
"""Rows that judge, so that a large task costs no more than a small one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    for task in TASKS:
        split(arguments.data / task, arguments.out / task)


def split(source: Path, out: Path) -> None:
    """Cut one task's training rows in two."""
    with gzip.open(source / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = list(lines)
    chosen = random.Random(0).sample(range(len(rows)), min(MOST, round(SHARE * len(rows))))
    held = set(chosen)
    out.mkdir(parents=True)
    write(out / "train.jsonl.gz", [row for i, row in enumerate(rows) if i not in held])
    write(out / "validation.jsonl.gz", [row for i, row in enumerate(rows) if i in held])
    print(f"{source.name}: {len(rows) - len(held)} rows train, {len(held)} judge")


def write(file: Path, rows: list[str]) -> None:
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(rows)


if __name__ == "__main__":
    main()
