"""The page of `eofd_table.py`: its cells as tables.

python benchmarks/eofd_page.py C.jsonl
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attar.models.config import ChangedModel
from attar.numerics.paired import paired
from attar.recipe.load import load_recipe
from attar.report.sections.seed_comparisons import signed
from attar.training.config import TrainStep
from eofd_table import BASELINE, EPOCHS, RECIPE, ROWS, SCALE_ROWS, SCALES, TEACHER, WIDTHS, key_of
from ptq_table import TASKS, read_cells
from record import table, write_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=Path)
    question = "Does minding a teacher's outlier dimensions help its student?"
    file = parser.parse_args().cells
    write_page("eofd", question, page(file), read_cells(file))


def page(file: Path) -> str:
    """Scores, the share of the teacher that is kept, differences seed by seed, and what became of
    the outliers."""
    everything = read_cells(file)
    twice = [key for key, n in Counter(map(key_of, everything)).items() if n > 1]
    if twice or any({"learning_rate", "longer"} & {*cell} for cell in everything):
        raise SystemExit(f"{file} has cells of other rates or lengths, or one twice: {twice[:3]}")
    scales = [cell for cell in everything if cell["method"] == SCALES]
    taught = [cell for cell in everything if cell["method"] not in (SCALES, TEACHER)]
    teachers = [cell for cell in everything if cell["method"] == TEACHER]
    tasks = [task for task in TASKS if any(cell["task"] == task for cell in taught)]
    bare = [task for task in tasks if not any(cell["task"] == task for cell in teachers)]
    if bare:
        raise SystemExit(f"{file} has no teacher of {bare}; run the method {TEACHER!r} for them")
    most = len({cell["seed"] for cell in taught})
    lengths = ", ".join(f"{task} {EPOCHS[task]} × {ROWS[task]:,}" for task in tasks)
    parts = [
        "MiniLM-L6 fine-tuned teaches its own blocks 1, 3 and 5. All methods of a task take equal "
        f"steps of 32 texts (epochs × rows: {lengths}) at one rate, and start from the same "
        "weights; seeds order the texts. Mean ± standard deviation over seeds, × 100: SST-2 and "
        "MRPC accuracy, CoLA Matthews, STS-B Spearman; the state after the last step.",
        _scale_words(scales),
        table(_head(tasks), _score_rows(taught, tasks, _mean_scores(teachers, tasks))),
        f"## Differences to `{BASELINE}`, seed by seed",
        "Mean over the tasks of each seed, then task by task. 95 % interval of Student's t over "
        f"seeds; p by flipping signs, {2.0 ** (1 - most):.2g} at the least of {most} seeds.",
        _differences(taught, tasks, BASELINE),
        "## Differences to `no_kd`",
        _differences(taught, tasks, "no_kd"),
        "## What became of the outliers, and what few bits cost",
        "Points that weights and activations of 8 and of 6 bits cost (min-max, 256 texts), mean "
        "over tasks ± standard deviation over seeds. An outlier dimension of a norm: its "
        "activations' standard deviation lies more than 3 of them above the mean; survived: the "
        "share of the teacher's, at the norms the student took over, that are still outliers "
        "there. Kurtosis: of the hidden states behind the blocks, 3 for a normal distribution.",
        _aftermath(teachers, taught, tasks),
    ]
    return "\n\n".join(part for part in parts if part)


def _mean_scores(cells: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> dict[str, float]:
    """Task → score."""
    return {t: statistics.mean(c["score"] for c in cells if c["task"] == t) for t in tasks}


def _aftermath(
    teachers: Sequence[Mapping[str, Any]], taught: Sequence[Mapping[str, Any]], tasks: Sequence[str]
) -> str:
    of_teacher = {cell["task"]: cell["outliers"] for cell in teachers}
    rows = []
    for method in (TEACHER, *dict.fromkeys(cell["method"] for cell in taught)):
        own = [c for c in (*teachers, *taught) if c["method"] == method and c["task"] in tasks]
        costs = [_mean(_cost(own, tasks, f"W{width}A{width}")) for width in WIDTHS]
        each = [len(found) for cell in own for found in cell["outliers"].values()]
        kept = [_survived(cell["outliers"], of_teacher[cell["task"]]) for cell in own]
        share = "" if method == TEACHER else f"{100 * statistics.mean(kept):.0f} %"
        behind = [list(cell["kurtosis"].values())[1:] for cell in own]
        kurtosis = statistics.mean(map(statistics.mean, behind))
        rows.append([method, *costs, f"{statistics.mean(each):.1f}", share, f"{kurtosis:.1f}"])
    costs_head = [f"W{width}A{width} costs" for width in WIDTHS]
    return table(("method", *costs_head, "outliers a norm", "survived", "kurtosis"), rows)


def _cost(cells: Sequence[Mapping[str, Any]], tasks: Sequence[str], width: str) -> list[float]:
    """Seed by seed, points lost on average over the tasks."""
    seeds = dict.fromkeys(cell["seed"] for cell in cells)
    lost = {(c["seed"], c["task"]): c["score"] - c[width] for c in cells}
    whole = [seed for seed in seeds if all((seed, task) in lost for task in tasks)]
    return [statistics.mean(lost[seed, task] for task in tasks) for seed in whole]


def _survived(student: Mapping[str, list[int]], teacher: Mapping[str, list[int]]) -> float:
    """Of the teacher's outliers at the norms that became the student's."""
    theirs = list(teacher.values())
    if len(theirs) != len(student):
        kept = _kept_blocks()
        a_block = (len(student) - 1) // len(kept)  # the first norm is the embeddings'
        of_blocks = (1 + a_block * block + norm for block in kept for norm in range(a_block))
        theirs = [theirs[place] for place in (0, *of_blocks)]
    pairs = list(zip(student.values(), theirs, strict=True))
    return sum(len({*own} & {*old}) for own, old in pairs) / sum(len(old) for _, old in pairs)


def _kept_blocks() -> Sequence[int]:
    model = _baseline().model
    assert isinstance(model, ChangedModel) and model.keep_blocks is not None
    return model.keep_blocks


def _baseline() -> TrainStep:
    step = load_recipe(RECIPE).steps[BASELINE]
    assert isinstance(step, TrainStep)
    return step


def _scale_words(scales: Sequence[Mapping[str, Any]]) -> str:
    if not scales:
        return ""
    names = [name for name in scales[0] if name not in ("task", "method", "seed")]
    rows = [[cell["task"], *(f"{cell[name]:.3g}" for name in names)] for cell in scales]
    ratios = [cell["L_PRED"] / cell["hidden_mse"] for cell in scales]
    mean = math.exp(statistics.mean(map(math.log, ratios)))
    [weight] = [loss.weight for loss in _baseline().losses if loss.kind == "hidden_mse"]
    return "\n\n".join(
        [
            f"The weight of every hidden loss is {weight:g} on every task. It was not tuned: it "
            "makes the hidden loss about as large as L_PRED before the first update (geometric "
            f"mean of the ratios over tasks: {mean:.2g}), on {SCALE_ROWS} training rows each:",
            table(("task", *names), rows),
        ]
    )


def _head(tasks: Sequence[str]) -> tuple[str, ...]:
    return ("method", *tasks, "mean", "of the teacher's", "seeds", "s a cell")


def _score_rows(
    cells: Sequence[Mapping[str, Any]], tasks: Sequence[str], teacher: Mapping[str, float]
) -> list[list[str]]:
    whole = statistics.mean(teacher[task] for task in tasks)
    shown = [f"{teacher[task]:.1f}" for task in tasks]
    rows = [["teacher", *shown, f"{whole:.1f}", "100 %", "", ""]]
    for method in dict.fromkeys(cell["method"] for cell in cells):
        own = [cell for cell in cells if cell["method"] == method]
        each = {task: [c["score"] for c in own if c["task"] == task] for task in tasks}
        means = list(_by_seed(cells, tasks, method).values())
        row = [method, *(_mean(scores) for scores in each.values()), f"**{_mean(means)}**"]
        share = f"{100 * statistics.mean(means) / whole:.1f} %" if means else "–"
        seconds = statistics.mean(cell["seconds"] for cell in own)
        rows.append([*row, share, str(len(means)), f"{seconds:.0f}"])
    return rows


def _mean(scores: Sequence[float]) -> str:
    if not scores:
        return "–"
    sd = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.1f}{sd}"


def _by_seed(
    cells: Sequence[Mapping[str, Any]], tasks: Sequence[str], method: str
) -> dict[int, float]:
    """Seed → mean over tasks, of the seeds that have them all."""
    own = {(c["seed"], c["task"]): c["score"] for c in cells if c["method"] == method}
    seeds = dict.fromkeys(seed for seed, _ in own)
    return {
        seed: statistics.mean(own[seed, task] for task in tasks)
        for seed in seeds
        if all((seed, task) in own for task in tasks)
    }


def _differences(cells: Sequence[Mapping[str, Any]], tasks: Sequence[str], against: str) -> str:
    rows = []
    for method in dict.fromkeys(cell["method"] for cell in cells):
        if method == against:
            continue
        for some in (tasks, *([task] for task in tasks)) if len(tasks) > 1 else (tasks,):
            ours, theirs = (_by_seed(cells, some, name) for name in (method, against))
            seeds = [seed for seed in ours if seed in theirs]
            if not seeds:
                continue
            found = paired([ours[s] / 100 for s in seeds], [theirs[s] / 100 for s in seeds])
            is_mean = len(some) > 1
            ends = [signed(end, "mean") for end in (found.low, found.high)]
            facts = [
                signed(found.mean, "mean"),
                " … ".join(filter(None, ends)),
                f"{found.wins} of {found.n}",
                "" if found.p is None else f"{found.p:.2g}",
                found.verdict,
            ]
            shown = [f"**{fact}**" if is_mean and fact else fact for fact in facts]
            rows.append([method if is_mean else "", "mean" if is_mean else some[0], *shown])
    head = ("method", "over", "difference", "95 % interval", "higher in", "p", "verdict")
    return table(head, rows)


if __name__ == "__main__":
    main()
