"""An answer to each question that is a part of a text, and the table it is kept in.

Exact match and F1 are SQuAD's, row by row, and a metric is their mean. Where a text may not answer
its question, none is given by the threshold in the model's own task, which was chosen on validation
when the model was trained; so a quantized model is judged with the threshold it is shipped with.

    predictions.parquet: row, answers, and for each model <name>.prediction, <name>.no_answer (score
                         of none minus that of the best part) and its metrics by row
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from attar.evaluation.compared import Compared, Judged
from attar.scoring.quoting import QuotedRows, agreement, golds_of


def judge_quotes(compared: Compared) -> Judged:
    """Let all models answer, keep it, and measure the data's metrics.

    Raises:
        NonFiniteError: a model gives NaN or infinite logits.
    """
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
