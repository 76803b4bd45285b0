"""The page says what was selected of which source, and shows chunks to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import corpora
import tiny_recipe

RECIPE = corpora.RECIPE.partition("[steps.student]")[0] + '[steps.report]\nrun = "report"\n'


@pytest.mark.slow
def test_a_selection_is_on_the_page(tmp_path: Path) -> None:
    recipe = corpora.write_recipe(tmp_path, RECIPE)
    texts = tmp_path / "texts" / "train.jsonl"
    texts.write_text(texts.read_text().replace("sea was", "<b>sea</b> was"))
    done = tiny_recipe.attar("run", recipe, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "selected"
    (selected,) = json.loads((run / "report" / "report.json").read_text())["selections"]
    metrics = json.loads((run / "kept" / "result.json").read_text())["metrics"]
    assert {s["name"]: s["kept"] for s in selected["sources"]} == {
        name: counts["kept"] for name, counts in metrics["sources"].items()
    }
    places = [chunk["place"] for chunk in selected["chunks"]]
    assert {"best kept", "kept, at the cut", "rejected, at the cut", "worst"} == set(places)
    by_place = {place: [] for place in places}
    for chunk in selected["chunks"]:
        assert chunk["score"] == pytest.approx(chunk["teacher"] - chunk["reference"])
        by_place[chunk["place"]].append(chunk["score"])
    assert min(by_place["kept, at the cut"]) == pytest.approx(metrics["cut"], abs=1e-6)
    assert min(by_place["best kept"]) >= max(by_place["kept, at the cut"])
    assert metrics["cut"] >= max(by_place["rejected, at the cut"])
    assert min(by_place["rejected, at the cut"]) >= max(by_place["worst"])
    page = (run / "report" / "index.html").read_text()
    assert "Chunks to read" in page
    assert "<b>sea</b>" not in page  # texts of strangers are escaped
