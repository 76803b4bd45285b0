"""Are zero-shot tasks asked as lm-evaluation-harness asks them, and how much faster?

    python benchmarks/zero_shot.py --path ../shared/data [--rows 500] [--rounds 1]
                                   [--model demo:smollm2-135m] [--batch-sizes 1 8 32]
                                   [--batch-tokens 4096 16384]

Every request of the eight free tasks is answered by both in one process, in float32 and with the
same threads, and compared: the largest difference of a log-likelihood, the answers that differ.
They take turns, task by task. Each gets its best settings: a few batches of the harness, and a few
budgets of attar, are tried on the first rows of every task before. One-token answers are looked up
by the harness in the logits of one text, which is its default.

The share of the work that is saved is printed beside: what texts share is read once, and logits
are made only where something is predicted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import torch

from attar.evaluation.config import EvaluateStep
from attar.evaluation.zero_shot.accuracy import answers_of
from attar.evaluation.zero_shot.harness import (
    harness_likelihoods,
    require_same_strings,
    version,
)
from attar.evaluation.zero_shot.plan import Read
from attar.evaluation.zero_shot.rows import TaskRows, read_tasks
from attar.evaluation.zero_shot.run import groups_of, requests_of
from attar.evaluation.zero_shot.tasks import STORYCLOZE, TASKS
from attar.models.sources.references import resolve_model
from attar.scoring.forms import open_form
from attar.scoring.shared_prefixes import Likelihoods, likelihoods
from record import table, write_page

TRIED_ROWS = 48
"""Of each task, on which settings are tried; of fewer, all budgets make the same batches."""
GOAL = 2.0
COLUMNS = (
    *("task", "requests", "largest difference, nats", "other answers", "accuracy"),
    "times as fast",
)
Rounds = list[dict[str, float]]
"""Of each round, the seconds of each task."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="demo:smollm2-135m")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[4096, 16384])
    arguments = parser.parse_args()
    folder = resolve_model(arguments.model, {}, Path())
    model = open_form(folder).language_model()
    tasks, few = (_rows(arguments, rows) for rows in (arguments.rows, TRIED_ROWS))

    def ours(asked: dict[str, TaskRows], budget: int) -> Likelihoods:
        requests = requests_of(arguments.model, folder, _pairs(asked))
        return likelihoods(model, requests, groups_of(asked), batch_tokens=budget)

    def theirs(asked: dict[str, TaskRows], batch: int) -> Likelihoods:
        return harness_likelihoods(model, folder, asked, batch)

    require_same_strings(_pairs(tasks), tasks)
    ours(few, arguments.batch_tokens[0])  # the first call tries out head and cache
    budget, tried_ours = _best(ours, few, arguments.batch_tokens)
    batch, tried_theirs = _best(theirs, few, arguments.batch_sizes)
    asks = {"attar": lambda of: ours(of, budget), "lm-eval": lambda of: theirs(of, batch)}
    seconds = {name: [dict.fromkeys(tasks, 0.0) for _ in range(arguments.rounds)] for name in asks}
    found: dict[str, list[Likelihoods]] = {name: [] for name in asks}
    for turn, (task, rows) in product(range(arguments.rounds), tasks.items()):
        for name, ask in asks.items():
            began = time.perf_counter()
            answered = ask({task: rows})
            seconds[name][turn][task] = time.perf_counter() - began
            found[name] += [answered] if turn == 0 else []
    read = Read.of(requests_of(arguments.model, folder, _pairs(tasks)), groups_of(tasks))
    body = (
        f"`{arguments.model}`, {sum(p.numel() for p in model.parameters()):,} parameters, float32, "
        f"{torch.get_num_threads()} threads; the first {arguments.rows} rows of each task, "
        f"{read.requests:,} requests; {arguments.rounds} rounds in turns; lm-eval {version()}.\n\n"
        f"{table(['', 'seconds, median', 'requests/s'], _speeds(seconds, read.requests))}\n\n"
        f"attar is **{_ratio(seconds, tuple(tasks))}** times as fast (goal {GOAL:g}). Settings: "
        f"attar batch_tokens = {budget} ({tried_ours}), lm-eval batch_size = {batch} "
        f"({tried_theirs}).\n\n"
        f"Of {read.whole_tokens:,} tokens of all texts attar reads {read.tokens:,}, and makes "
        f"logits for {read.predictions:,}.\n\n"
        f"{table(COLUMNS, _by_task(tasks, found, seconds))}"
    )
    write_page("zero_shot", "Are zero-shot tasks asked as lm-eval asks them, and how fast?", body)


def _rows(arguments: Any, rows: int) -> dict[str, TaskRows]:
    names = tuple(name for name in TASKS if name != STORYCLOZE)
    given = {"models": (arguments.model,), "tasks": names, "path": str(arguments.path)}
    return read_tasks(EvaluateStep.model_validate({**given, "rows": rows}), Path())


def _pairs(tasks: dict[str, TaskRows]) -> list[tuple[str, str]]:
    return [pair for rows in tasks.values() for each in rows.questions for pair in each.pairs]


def _best(
    ask: Callable[[dict[str, TaskRows], int], Any],
    few: dict[str, TaskRows],
    settings: Sequence[int],
) -> tuple[int, str]:
    """The fastest setting, and the seconds of all."""
    found: dict[int, float] = {}
    for setting in settings:
        began = time.perf_counter()
        ask(few, setting)
        found[setting] = time.perf_counter() - began
    said = ", ".join(f"{setting}: {seconds:.1f} s" for setting, seconds in found.items())
    return min(found, key=lambda setting: found[setting]), f"tried {said}"


def _speeds(seconds: Mapping[str, Rounds], requests: int) -> list[list[Any]]:
    rows = []
    for name, rounds in seconds.items():
        totals = [sum(of_tasks.values()) for of_tasks in rounds]
        median = statistics.median(totals)
        spread = f" ({min(totals):.1f} … {max(totals):.1f})" if len(totals) > 1 else ""
        rows.append([name, f"{median:.1f}{spread}", f"{requests / median:.2f}"])
    return rows


def _ratio(seconds: Mapping[str, Rounds], tasks: Sequence[str]) -> str:
    """How many times as fast attar answers these tasks: the median of the rounds, and its range."""
    ours, theirs = (
        [sum(of_tasks[task] for task in tasks) for of_tasks in seconds[name]]
        for name in ("attar", "lm-eval")
    )
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    ends = f" ({min(ratios):.2f} … {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}{ends}"


def _by_task(
    tasks: Mapping[str, TaskRows],
    found: Mapping[str, Sequence[Likelihoods]],
    seconds: Mapping[str, Rounds],
) -> list[list[Any]]:
    rows = []
    for place, (name, asked) in enumerate(tasks.items()):
        ours, theirs = (
            answers_of({name: asked}, found[each][place])[name] for each in ("attar", "lm-eval")
        )
        pairs = [np.abs(a - b).max() for a, b in zip(ours.log_p, theirs.log_p, strict=True)]
        other = int((ours.predictions != theirs.predictions).sum())
        labels = np.array([question.label for question in asked.questions])
        right = float((ours.predictions == labels).mean())
        count = sum(len(question.pairs) for question in asked.questions)
        faster = _ratio(seconds, [name])
        rows.append([asked.task.title, count, f"{max(pairs):.1e}", other, f"{right:.3f}", faster])
    return rows


if __name__ == "__main__":
    main()
