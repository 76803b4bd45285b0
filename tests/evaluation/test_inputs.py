"""Inputs for timing: an exact shape, real ids, nothing masked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from attar.data.tokenize import TextEncoder
from attar.errors import UsageError
from attar.evaluation.config import EvaluateStep, Speed
from attar.evaluation.inputs import exact_batch, fixed_tokens, longest_texts, timed_tokens
from attar.tasks.task import Task

TASK = Task(
    objective="classification",
    label_names=("a", "b"),
    max_length=32,
    input_names=("input_ids", "attention_mask", "token_type_ids"),
)
TEXTS = [("open the file",), ("how do i read a list", "sort the map")]


@pytest.mark.parametrize("tokens", [4, 17, 60])
def test_a_batch_has_exactly_the_tokens_asked_for_and_none_is_masked(
    tiny_bert: Path, tokens: int
) -> None:
    batch = exact_batch(tiny_bert, TASK, TEXTS, tokens)
    assert list(batch) == list(TASK.input_names)
    assert {values.shape for values in batch.values()} == {(2, tokens)}
    assert (batch["attention_mask"] == 1).all()


def test_ids_are_the_text_s_own_repeated_and_cut(tiny_bert: Path) -> None:
    encoder = TextEncoder.from_folder(tiny_bert, TASK.max_length, TASK.input_names)
    real = encoder.encode(TEXTS)
    batch = exact_batch(tiny_bert, TASK, TEXTS, 30)
    for row in range(2):
        for name in ("input_ids", "token_type_ids"):
            once = real.batch([row])[name][0]
            assert (batch[name][row] == np.tile(once, 30)[:30]).all()


def test_more_tokens_than_positions_are_refused_with_both_numbers(tiny_bert: Path) -> None:
    with pytest.raises(UsageError, match=r"texts of 65 tokens.*64 positions; set lengths = \[64\]"):
        exact_batch(tiny_bert, TASK, TEXTS, 65)


def test_positions_that_roberta_leaves_out_are_no_room(tiny_bert: Path, tmp_path: Path) -> None:
    """It counts from its padding id on: ids beyond the table would be looked up."""
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "roberta"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "roberta", "pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps(config))
    assert exact_batch(folder, TASK, TEXTS, 62)["input_ids"].shape == (2, 62)
    with pytest.raises(UsageError, match=r"texts of 63 tokens.*62 positions"):
        exact_batch(folder, TASK, TEXTS, 63)


def test_the_longest_texts_come_first_and_are_repeated_when_few() -> None:
    texts = [("aa",), ("b" * 9,), ("cc", "cccc")]
    assert longest_texts(texts, 2) == [texts[1], texts[2]]
    assert longest_texts(texts, 5) == [texts[1], texts[2], texts[0], texts[1], texts[2]]


@pytest.mark.parametrize(
    ("settings", "timed", "fixed"),
    [
        ({}, (23, 128), 128),
        ({"lengths": ("data",)}, (23,), 128),
        ({"lengths": (64, "data", 256)}, (64, 23, 256), 256),
        ({"lengths": ("data", 23)}, (23,), 23),
        ({"speed": Speed(tokens=16)}, (16,), 16),
    ],
)
def test_the_data_s_median_length_is_timed_beside_fixed_ones(
    settings: dict[str, object], timed: tuple[int, ...], fixed: int
) -> None:
    """The first length is the one of the headline; FLOPs and memory are of the longest fixed."""
    config = EvaluateStep.model_validate({"models": ("a",), "data": "docs", **settings})
    assert timed_tokens(config, [4, 22, 23, 60, 300]) == timed
    assert fixed_tokens(config) == fixed
