"""What the report shows of a selection is counted, not estimated, whatever the parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import made_up_selection
from attar.numerics import selection as selection_numerics
from attar.selection import explored
from attar.selection.explored import BINS, EXAMPLES, EXPLORED_FILE
from attar.selection.fates import BELOW, KEPT, REASONS, Selection
from attar.selection.near_duplicates import similarity

COUNT = 20_000


@pytest.fixture(scope="module")
def selection() -> Selection:
    return made_up_selection.selection(COUNT)


def _written(folder: Path, selection: Selection, **more: Any) -> dict[str, Any]:
    step = made_up_selection.write_selection(folder, selection, **more)
    return json.loads((step / EXPLORED_FILE).read_text())


def _is_free(selection: Selection) -> np.ndarray:
    return (selection.fate == KEPT) | (selection.fate == BELOW)


def test_each_edge_knows_what_its_cut_keeps_of_each_source(
    tmp_path: Path, selection: Selection
) -> None:
    shares = _written(tmp_path, selection)["shares"]
    scored, free = selection.scored, _is_free(selection)
    assert shares["members"] == COUNT
    for edge in range(0, len(shares["edges"]), 37):
        is_above = free & (selection.keys >= np.float32(shares["edges"][edge]))
        for source in shares["sources"]:
            number = made_up_selection.SOURCES.index(source["name"])
            chosen = is_above & (scored.source == number)
            assert sum(source["chunks"][edge:]) == chosen.sum()
            assert sum(source["tokens"][edge:]) == scored.tokens[chosen].sum()


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_a_bin_has_a_thousandth_of_the_chunks(selection: Selection, scale: float) -> None:
    keys = (selection.keys * np.float32(scale)).astype(np.float32)
    shares = explored._shares(replace(selection, keys=keys), made_up_selection.SOURCES)
    counts = np.sum([source["chunks"] for source in shares["sources"]], axis=0)
    assert counts.max() <= 1.5 * COUNT / BINS
    assert counts.sum() == _is_free(selection).sum()


def test_equal_scores_share_a_bin(selection: Selection) -> None:
    same = replace(selection, keys=np.full(COUNT, 0.25, np.float32))
    shares = explored._shares(same, made_up_selection.SOURCES)
    assert shares["edges"] == [0.25]


def test_bars_count_every_chunk_by_its_fate(tmp_path: Path, selection: Selection) -> None:
    histogram = _written(tmp_path, selection)["histogram"]
    score = selection.scored.score.astype(np.float64)
    for fate, reason in enumerate(REASONS):
        counts = histogram["counts"][reason]
        edges = histogram["low"] + histogram["width"] * np.arange(len(counts) + 1)
        inner = np.histogram(score[selection.fate == fate], edges)[0]
        assert np.abs(inner[1:-1] - counts[1:-1]).sum() <= 2  # rounding at an edge
        assert sum(counts) == (selection.fate == fate).sum()


def test_parts_do_not_change_what_is_counted(
    tmp_path: Path, selection: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _written(tmp_path / "whole", selection)
    monkeypatch.setattr(selection_numerics, "AT_ONCE", 777)
    assert _written(tmp_path / "parts", selection) == whole


def test_a_source_with_its_own_share_does_not_move(selection: Selection) -> None:
    shares = explored._shares(replace(selection, common=(0, 1, 3)), made_up_selection.SOURCES)
    web = next(source for source in shares["sources"] if source["name"] == "web")
    is_kept = (selection.fate == KEPT) & (selection.scored.source == 2)
    assert sum(web["chunks"]) == 0
    assert web["fixed"] == [is_kept.sum(), selection.scored.tokens[is_kept].sum()]
    assert shares["members"] == (selection.scored.source != 2).sum()


def test_small_sources_are_counted_together() -> None:
    many = made_up_selection.selection(COUNT, sources=40)
    shares = explored._shares(many, [f"s{n}" for n in range(40)])
    *largest, others = shares["sources"]
    assert len(largest) == explored.MOST_SOURCES - 1
    assert others["name"] is None
    assert sum(sum(source["chunks"]) for source in shares["sources"]) == _is_free(many).sum()


def test_chunks_to_read_come_from_where_they_say(tmp_path: Path, selection: Selection) -> None:
    examples = _written(tmp_path, selection)["examples"]
    kept = np.sort(selection.scored.score[selection.fate == KEPT])
    scores: dict[str, list[float]] = {}
    for example in examples:
        scores.setdefault(example["place"], []).append(example["teacher"] - example["reference"])
        assert len(example["text"]) <= explored.EXAMPLE_CHARACTERS
    assert list(scores) == list(explored.PLACES)
    assert all(len(found) == EXAMPLES for found in scores.values())
    assert min(scores["best kept"]) >= kept[-len(kept) // 100] - 1e-6
    assert np.allclose(sorted(scores["kept, at the cut"]), kept[:EXAMPLES], atol=1e-6)
    assert max(scores["rejected, at the cut"]) <= kept[0] + 1e-6
    for example in examples:
        if example["place"] == "near duplicate":
            assert example["repeats"]["row"] == example["row"] // 2
            texts = example["text"], example["repeats"]["text"]
            assert example["repeats"]["similarity"] == similarity(*texts)


def test_a_chunk_that_is_repeated_often_is_shown_once(tmp_path: Path, selection: Selection) -> None:
    repeats = np.where(selection.repeats < 0, -1, selection.repeats % 3)
    examples = _written(tmp_path, replace(selection, repeats=repeats))["examples"]
    pairs = [example for example in examples if example["place"] == "near duplicate"]
    assert sorted(pair["repeats"]["row"] for pair in pairs) == [0, 1, 2]
    assert {pair["of"] for pair in pairs} == {np.count_nonzero(repeats >= 0)}


def test_samples_depend_on_the_seed_alone(tmp_path: Path, selection: Selection) -> None:
    one, same = (_written(tmp_path / name, selection) for name in ("one", "same"))
    assert one == same
    read = made_up_selection.texts_of("text")
    explored.write_explored(tmp_path, made_up_selection.SOURCES, selection, read, seed=1)
    assert json.loads((tmp_path / EXPLORED_FILE).read_text())["examples"] != one["examples"]
