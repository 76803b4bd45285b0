"""The answer is the best of all parts of a text over all its windows, as one loop finds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp

import tiny
from attar.data.tables import Marks
from attar.data.windows import NOWHERE, WindowEncoder
from attar.scoring.quoting import Quote, QuotedRows, agreement, golds_of, threshold_of
from attar.tasks.task import Task

LONGEST = 3
TEXTS = [
    ("the list", " ".join(["the", "film", "of", "reading", "files", "and", "lists"] * 3)),
    ("film", "good film"),
    ("film", ""),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> QuotedRows:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(folder)
    inputs = ("input_ids", "attention_mask")
    task = Task(objective="question_answering", max_length=18, window_overlap=4, input_names=inputs)
    return QuotedRows.of(TEXTS, WindowEncoder(folder, task))


def by_loop(rows: QuotedRows, row: int, logits: np.ndarray) -> Quote:
    """Every part of every window, one at a time, in float64."""
    windows, starts = rows.windows, rows.windows.encoded.starts
    parts, nones = [], []
    for window in np.flatnonzero(windows.rows == row):
        nones.append(float(logits[starts[window]].sum()))
        tokens = range(starts[window], starts[window + 1])
        places = [token for token in tokens if windows.begins[token] != NOWHERE]
        for at, begin in enumerate(places):
            for end in places[at : at + LONGEST]:
                score = float(logits[begin, 0]) + float(logits[end, 1])
                parts.append((score, int(windows.begins[begin]), int(windows.ends[end])))
    best, begin, end = max(parts)
    none, total = min(nones), logsumexp([*(score for score, *_ in parts), min(nones)])
    return Quote(begin, end, none - best, np.exp(best - total), np.exp(none - total))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_part_over_all_windows_and_its_share_are_those_of_a_loop(
    rows: QuotedRows, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.scoring.quoting.MAX_ANSWER_TOKENS", LONGEST)
    assert (rows.windows.first[1], rows.windows.num_rows) > (2, 3)
    shape = (len(rows.windows.encoded.ids), 2)
    logits = 3 * np.random.default_rng(seed).standard_normal(shape)
    found = rows.quotes(logits)
    for row in (0, 1):
        assert vars(found[row]) == pytest.approx(vars(by_loop(rows, row, logits)), rel=1e-12)
    assert found[2] == Quote(0, 0, np.inf, 0.0, 1.0)  # a text without a token


def test_an_answer_is_the_characters_of_its_part_unless_none_is_likelier() -> None:
    rows = QuotedRows(None, ["a good film", "bad", "", "bad"])  # type: ignore[arg-type]
    places = ((2, 11, -1.0), (0, 3, 2.0), (0, 0, np.inf), (0, 3, 1.0))
    quotes = [Quote(*place, 0.5, 0.5) for place in places]
    assert rows.answers(quotes, None) == ["good film", "bad", "", "bad"]
    assert rows.answers(quotes, 1.0) == ["good film", "", "", "bad"]


def test_answers_agree_with_those_of_people_as_squad_measures_it() -> None:
    marks = [Marks(((2, 11, ""), (7, 11, ""))), Marks(((2, 6, ""),)), None]
    golds = golds_of([("a bad question", "a good film")] * 3, marks)
    assert golds == [("good film", "film"), ("good",), ()]
    found = agreement(["a film", "good film", ""], golds)
    assert found["squad_f1"] == pytest.approx([1, 2 / 3, 1])
    assert found["exact_match"].tolist() == [1, 0, 1]


def test_the_threshold_lies_between_what_has_an_answer_and_what_has_none() -> None:
    rows = QuotedRows(None, ["good", "film", "bad"])  # type: ignore[arg-type]
    quotes = [
        Quote(0, len(text), none, 0.5, 0.5)
        for text, none in zip(rows.contexts, (-2.0, 1.0, 3.0), strict=True)
    ]
    threshold = threshold_of(rows, quotes, [("good",), (), ()])
    assert threshold is not None
    assert rows.answers(quotes, threshold) == ["good", "", ""]
    assert threshold_of(rows, quotes, [("good",), ("x",), ("y",)]) is None
