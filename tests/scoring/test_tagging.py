"""F1 of marks is seqeval's, and a word is read at its first token, in the window where it is
deepest."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import tiny
from attar.data.tables import Marks
from attar.data.windows import WindowEncoder
from attar.numerics.metrics import on_all_rows
from attar.numerics.statistics import bootstrap
from attar.scoring.tagging import TaggedRows, right_and_made
from attar.tasks.tagging import marks_of_tags, tag_names, words_of
from attar.tasks.task import Task

NAMES = tag_names(["PER", "LOC"])
METRICS = ("span_f1", "span_precision", "span_recall")


def drawn(seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Well-formed tags of rows, and what a model might say of them."""
    draw = random.Random(seed)
    gold, found = [], []
    for _ in range(60):
        words = draw.randint(1, 12)
        tags = draw.choices(NAMES, k=words)
        marks = marks_of_tags(tags, strict=True)
        clean = ["O"] * words
        for a, b, label in marks:
            clean[a:b] = [f"{'I' if i else 'B'}-{label}" for i in range(b - a)]
        gold.append(clean)
        found.append([draw.choice(NAMES) if draw.random() < 0.3 else tag for tag in clean])
    return gold, found


def reference(gold: list[list[str]], found: list[list[str]]) -> tuple[float, float, float]:
    """F1, precision and recall with each entity written out as (row, first, last, type)."""

    def entities(rows: list[list[str]]) -> set[tuple[int, int, int, str]]:
        written = set()
        for row, tags in enumerate(rows):
            begin = None
            for i, tag in enumerate([*tags, "O"]):
                if begin is not None and tag != "I-" + tags[begin][2:]:
                    written.add((row, begin, i, tags[begin][2:]))
                    begin = None
                if tag.startswith("B-"):
                    begin = i
        return written

    ours, theirs = entities(found), entities(gold)
    right = len(ours & theirs)
    precision, recall = right / len(ours), right / len(theirs)
    return 2 * precision * recall / (precision + recall), precision, recall


def counts(gold: list[list[str]], found: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    made = [marks_of_tags(tags, strict=True) for tags in found]
    return right_and_made(made, [marks_of_tags(tags) for tags in gold])


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_that_of_entities_written_out(seed: int) -> None:
    gold, found = drawn(seed)
    values = [on_all_rows(metric, *counts(gold, found)) for metric in METRICS]
    assert values == pytest.approx(reference(gold, found), abs=1e-12)


def test_f1_is_that_of_seqeval() -> None:
    metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    scheme = pytest.importorskip("seqeval.scheme").IOB2
    gold, found = drawn(7)
    for name, of_seqeval in zip(METRICS, ("f1", "precision", "recall"), strict=True):
        score = getattr(metrics, f"{of_seqeval}_score")(gold, found, mode="strict", scheme=scheme)
        assert on_all_rows(name, *counts(gold, found)) == pytest.approx(score, abs=1e-12)


def test_a_resample_of_sentences_has_the_f1_of_their_sums() -> None:
    gold, found = drawn(3)
    made, marked = counts(gold, found)
    draws = np.random.default_rng(0).integers(0, len(gold), (4, len(gold)))
    resampled = np.stack([np.bincount(draw, minlength=len(gold)) for draw in draws]).astype(float)
    from attar.numerics.metrics import METRICS_OF_COUNTS

    for draw, value in zip(
        draws, METRICS_OF_COUNTS["span_f1"](made, marked, resampled), strict=True
    ):
        again = on_all_rows("span_f1", made[draw], marked[draw])
        assert value == pytest.approx(again, abs=1e-12)
    one = bootstrap("span_f1", {"model": made}, marked, resamples=50)["model"]
    assert one.resampled.min() <= one.value <= one.resampled.max()


def short_windows(folder: Path) -> WindowEncoder:
    """Windows of 12 tokens."""
    tiny.write_tokenizer(folder)
    inputs = ("input_ids", "attention_mask")
    task = Task(
        objective="token_classification", label_names=NAMES, max_length=12, input_names=inputs
    )
    return WindowEncoder(folder, task)


def test_a_word_is_read_at_its_first_token_in_the_window_where_it_is_deepest(
    tmp_path: Path,
) -> None:
    """Whatever the tokens of the other windows say."""
    windows = short_windows(tmp_path)
    words = ["the", "tests", "of", "reading", "files", "and", "the", "listing"] * 4
    text, places = " ".join(words), []
    for word in words:
        begin = places[-1][1] + 1 if places else 0
        places.append((begin, begin + len(word)))
    rows = TaggedRows.of([(text,)], [Marks((), tuple(places))], windows)
    encoded = rows.windows.encoded
    assert len(encoded) > 2
    assert set(encoded.lengths.tolist()[:-1]) == {12}
    logits = np.zeros((len(encoded.ids), len(NAMES)), np.float32)
    logits[:, 0] = 1  # O everywhere but where it is looked at
    (pieces,) = rows.pieces
    logits[pieces[3], NAMES.index("B-LOC")] = 9
    logits[pieces[4], NAMES.index("I-LOC")] = 9
    assert rows.marks(logits, NAMES) == [((places[3][0], places[4][1], "LOC"),)]
    assert [rows.windows.begins[p] for p in pieces] == [a for a, _ in places]
    (before,) = rows.probable_marks(logits, NAMES)
    logits[pieces[::2]] += 5000  # what is added to all tags of a word changes no share
    assert rows.probable_marks(logits, NAMES) == [[(*before[0][:3], pytest.approx(before[0][3]))]]


def test_the_words_are_those_of_the_data_and_a_mark_begins_with_b_where_there_is_one(
    tmp_path: Path,
) -> None:
    """Words with a space in them; a row without words is cut into its own."""
    windows = short_windows(tmp_path)
    marks = [Marks((), ((0, 9), (10, 14))), None]
    rows = TaggedRows.of([("good film list",)] * 2, marks, windows)
    assert rows.words == [((0, 9), (10, 14)), words_of("good film list")]
    logits = np.zeros((len(rows.windows.encoded.ids), 2), np.float32)
    logits[:, 1] = [1, *[9] * (len(logits) - 1)]
    assert rows.marks(logits, ("O", "I-LOC")) == [((0, 14, "LOC"),)] * 2
    assert rows.marks(logits, ("B-PER", "I-LOC")) == [()] * 2
