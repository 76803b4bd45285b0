"""Marks in each text, and the table they are kept in.

    F1 = 2 · right / (made + marked), sums over rows       by label, and over all labels

A mark is right where both its ends and its label are. Intervals are over rows: a resample draws
texts, and the sums follow.

    predictions.parquet: row, marks, and for each model <name>.marks, as JSON: [[begin, end, label]]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attar.evaluation.compared import Compared, Judged
from attar.numerics.metrics import on_all_rows
from attar.scoring.tagging import TaggedRows, right_and_made
from attar.tasks.tagging import Mark


def judge_tags(compared: Compared) -> Judged:
    """Let all models mark the texts, keep it, and measure the data's metrics.

    Raises:
        NonFiniteError: a model gives NaN or infinite logits.
    """
    data, split = compared.data, compared.split
    marked = [() if marks is None else marks.marks for marks in split.marks or ()]
    found: dict[str, list[tuple[Mark, ...]]] = {}
    with compared.progress("rows", len(compared.forms)) as after_model:
        for name, form in compared.forms.items():
            rows = TaggedRows.of(split.texts, split.marks, form.window_encoder)
            logits = compared.scores(name, rows.windows.encoded, of_tokens=True)
            found[name] = rows.marks(logits, form.task.label_names)
            after_model(1, name)
    counts = {name: right_and_made(marks, marked) for name, marks in found.items()}
    labels = next(iter(counts.values()))[1]
    made = {name: of_model for name, (of_model, _) in counts.items()}
    columns = {"row": compared.numbers(len(split)), "marks": list(map(json.dumps, marked))}
    compared.write(
        columns | {f"{name}.marks": list(map(json.dumps, marks)) for name, marks in found.items()}
    )
    metrics = {metric: compared.bootstrap(metric, made, labels) for metric in data.metrics}
    return metrics, {name: {"per_class": by_label(marks, marked)} for name, marks in found.items()}


def by_label(
    found: Sequence[Sequence[Mark]], marked: Sequence[Sequence[Mark]]
) -> dict[str, Mapping[str, Any]]:
    """Label → precision, recall and F1 of its marks, how many there are and how many were made."""
    names = sorted({label for marks in (*found, *marked) for _, _, label in marks})
    figures: dict[str, Mapping[str, Any]] = {}
    for name in names:
        ours, theirs = (
            [[mark for mark in marks if mark[2] == name] for marks in rows]
            for rows in (found, marked)
        )
        made, rows = right_and_made(ours, theirs)
        shares = ("precision", "recall", "f1")
        figures[name] = {
            **{share: on_all_rows(f"span_{share}", made, rows) for share in shares},
            "rows": int(rows.sum()),
            "predicted": int(made[:, 1].sum()),
        }
    return figures
