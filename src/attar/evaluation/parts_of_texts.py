"""Evaluates entity spans (token classification) and extractive question answering.

    F1 = 2 · correct / (predicted + gold), sums over rows       per label, and over all labels

An entity is correct if both ends and the label are. Intervals are over rows: each resample draws
texts, and F1 is computed from its sums. Exact match and F1 of answers are SQuAD's, averaged over
rows. If questions can be unanswerable, the model abstains according to the threshold in its own
task, which was chosen on validation data in training. So a quantized model is evaluated with the
threshold that it is deployed with.

    predictions.parquet: row, marks, and for each model <name>.marks: JSON, [[begin, end, label]];
                         or row, answers, and for each model <name>.prediction, <name>.no_answer
                         (score of no answer minus that of the best span) and its metrics per row
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attar.evaluation.compared import Compared, Judged
from attar.numerics.metrics import on_all_rows
from attar.scoring.quoting import QuotedRows, agreement, golds_of
from attar.scoring.tagging import TaggedRows, right_and_made
from attar.tasks.tagging import Mark


def judge_tags(compared: Compared) -> Judged:
    """Predict entities with all models, save them, and compute the data's metrics."""
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
    """Label → precision, recall and F1, with the numbers of gold and predicted entities."""
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


def judge_quotes(compared: Compared) -> Judged:
    """Predict answers with all models, save them, and compute the data's metrics."""
    split = compared.split
    golds = golds_of(split.texts, split.marks or ())
    scores: dict[str, dict[str, np.ndarray]] = {}
    columns: dict[str, Any] = {
        "row": compared.numbers(len(split)),
        "answers": list(map(json.dumps, golds)),
    }
    with compared.progress("models", len(compared.forms)) as after_model:
        for name, form in compared.forms.items():
            rows = QuotedRows.of(split.texts, form.window_encoder)
            quotes = rows.quotes(compared.scores(name, rows.windows.encoded, of_tokens=True))
            answers = rows.answers(quotes, form.task.no_answer_threshold)
            scores[name] = agreement(answers, golds)
            no_answer = [quote.no_answer for quote in quotes]
            columns[f"{name}.prediction"] = answers
            columns[f"{name}.no_answer"] = np.array(no_answer, np.float32)
            columns |= {f"{name}.{m}": v.astype(np.float32) for m, v in scores[name].items()}
            after_model(1, name)
    compared.write(columns)
    return compared.means(scores), {
        name: {"no_answer_threshold": form.task.no_answer_threshold}
        for name, form in compared.forms.items()
        if form.task.no_answer_threshold is not None
    }
