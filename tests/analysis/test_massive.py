"""Massive activations: what is planted is found, with its word, its place and its value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from attar.analysis.outlying.hidden import HiddenState, Tokens
from attar.analysis.outlying.massive import Carried, Massive, massive_rows
from studied import run_study, vocabulary_for

PLANTED = 7


def tokens(lengths: list[int]) -> Tokens:
    texts = torch.cat([torch.full((n,), text) for text, n in enumerate(lengths)])
    positions = torch.cat([torch.arange(n) for n in lengths])
    return Tokens(torch.arange(len(texts)) + 100, positions, texts)


def seen(values: torch.Tensor, lengths: list[int], pieces: list[int]) -> dict[Any, Carried]:
    massive = Massive(tokens(lengths))
    for piece in values.split(pieces):
        massive.see(piece)
    return massive.found


def plain(count: int) -> torch.Tensor:
    return torch.full((count, 8), 0.5)


def test_both_borders_count() -> None:
    values = plain(6)
    values[2, 3], values[3, 3] = -501.0, 499.0
    found = seen(values, [6], [6])
    assert list(found) == [(3, 102)]
    assert found[3, 102] == Carried(times=1, value=-501.0, position=2, ratio=1002.0)
    small = plain(6) / 100
    small[1, 1] = 99.0
    assert seen(small, [6], [6]) == {}


def test_the_median_is_that_of_the_tokens_own_text() -> None:
    values = torch.cat([plain(4), plain(4) * 10])
    values[1, 0] = values[5, 0] = 600.0
    assert list(seen(values, [4, 4], [8])) == [(0, 101)]


def test_batches_of_texts_give_what_all_at_once_do() -> None:
    values = plain(10)
    values[0, 1], values[4, 1], values[9, 6] = 700.0, 900.0, -800.0
    at_once = seen(values, [3, 3, 4], [10])
    assert at_once == seen(values, [3, 3, 4], [3, 3, 4]) == seen(values, [3, 3, 4], [6, 4])
    assert len(at_once) == 3
    assert at_once[6, 109].position == 3


def test_a_word_that_carries_a_massive_value_is_named_with_its_place(tmp_path: Path) -> None:
    def carried(model: Any) -> None:
        model.transformer.shared.weight.mul_(0.01)
        model.transformer.shared.weight[word, PLANTED] = -5000.0

    word = vocabulary_for(tmp_path)["file"]
    found = run_study(tmp_path / "run", "outliers", change=carried, family="t5")
    row = found.content["massive"][0]
    assert (row["token"], row["dimension"]) == ("file", PLANTED)
    assert row["value"] < -4900
    assert {r["token"] for r in found.content["massive"]} == {"file"}
    embedding = [r for r in found.content["massive"] if r["layer"] == 0]
    assert {r["stack"] for r in embedding} == {"encoder", "decoder"}
    assert all(r["block"] is None for r in embedding)
    total = sum(found.metrics["massive_activations"].values())
    assert found.facts["massive_activations"] == total
    assert total >= sum(r["times"] for r in embedding) > 0


def test_a_model_without_massive_values_is_clean(tmp_path: Path) -> None:
    found = run_study(tmp_path, "outliers")
    assert found.content["massive"] == []
    assert found.metrics["massive_activations"] == {"encoder": 0}


def test_the_largest_stand_first_whatever_their_sign(tmp_path: Path) -> None:
    vocabulary = vocabulary_for(tmp_path)
    words = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    state = HiddenState("hidden_states.1", "block", 0, "encoder", 1)
    massive = Massive(tokens([4]))
    massive.found = {
        (3, vocabulary["file"]): Carried(2, 500.0, 1, 1100.0),
        (5, vocabulary["movie"]): Carried(1, -900.0, 2, 2000.0),
        (6, 10**6): Carried(1, 700.0, 3, 1500.0),
    }
    rows = massive_rows({state: massive}, words, 2)
    assert [(row["token"], row["value"]) for row in rows] == [
        ("movie", -900.0),
        ("#1000000", 700.0),
    ]
