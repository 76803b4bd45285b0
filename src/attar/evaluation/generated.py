"""Classes and scores predicted by greedy generation.

Apart from surrounding whitespace, a generated text must equal one of the label words. Any other
text gets the class −1, which counts as wrong in every metric. For regression, any number is
accepted; other texts get the value −1, as in T5's evaluation.

    exact_match      share of texts equal to the correct label word, or to the rounded number
    not_a_word       share of texts that are not a label word, or not a number

    predictions.parquet: row, label, and for each model <name>.prediction and <name>.text
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.errors import UsageError
from attar.evaluation.compared import Compared, Judged
from attar.evaluation.config import writes_nothing
from attar.scoring.rows import longest_first
from attar.training.objectives.text_pairs import nearest_words

if TYPE_CHECKING:
    from attar.scoring.forms import Form

NONE = -1
"""Prediction for a text that is not a valid answer."""


def judge_generated(compared: Compared) -> Judged:
    """Generate answers with all models and compute the data's metrics.

    Raises:
        UsageError: a model has a classification head.
        ModelError: a model is decoder-only, so its label words have no end token.
    """
    data, split = compared.data, compared.split
    columns: dict[str, Any] = {"row": compared.numbers(len(split)), "label": split.labels}
    answers: dict[str, np.ndarray] = {}
    facts: dict[str, dict[str, Any]] = {}
    with compared.progress("rows", len(compared.forms) * len(split)) as after_batch:
        for name, form in compared.forms.items():
            if not form.task.label_words:
                raise UsageError(f"{compared.context.name}: {writes_nothing(name)}")
            encoded = compared.encode(name)
            texts = [""] * len(split)
            for rows in longest_first(encoded.lengths, compared.config.batch_size):
                written = form.encoder.decode(form.generate(encoded.batch(rows)).ids)
                for row, text in zip(rows, written, strict=True):
                    texts[row] = text.strip()
                after_batch(len(rows), name)
            found, gold = _read(texts, form, compared.columns[name], split.labels)
            answers[name] = found
            equal = [text == word for text, word in zip(texts, gold, strict=True)]
            facts[name] = {
                "exact_match": float(np.mean(equal)),
                "not_a_word": float(np.mean(found == NONE)),
            }
            columns |= {f"{name}.prediction": found, f"{name}.text": texts}
    compared.write(columns)
    metrics = {m: compared.bootstrap(m, answers, split.labels) for m in data.metrics}
    return metrics, facts


def _read(
    texts: Sequence[str], form: Form, columns: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The class or number of each text, and the correct word for each."""
    words, values = form.task.label_words, form.task.word_values
    if values:
        nearest = nearest_words(labels, np.array(values))
        return np.array(list(map(_number, texts))), [words[place] for place in nearest]
    own = [words[column] for column in columns]
    places = {word.strip(): place for place, word in enumerate(own)}
    found = np.array([places.get(text, NONE) for text in texts], dtype=np.int64)
    return found, [own[label].strip() for label in labels]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return float(NONE)
    return number if math.isfinite(number) else float(NONE)
