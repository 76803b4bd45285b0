"""The page says what was selected of which source, and shows chunks to read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import corpora
import made_up_run
import made_up_selection
import tiny_recipe
from attar.escaping import for_reading
from attar.report.sections.selection import MOST_EXPLORED
from attar.selection.fates import UNSCORED
from attar.selection.scores import Details

RECIPE = corpora.RECIPE.partition("[steps.student]")[0] + '[steps.report]\nrun = "report"\n'
MOST_BYTES = 3 * 2**20
LEAST_APART = 10
"""In lightness (CIE L*, 0 to 100): what differs by less looks alike in grey."""


def _page(folder: Path, steps: dict[str, Path]) -> str:
    recipe = {"name": "demo", "steps": {name: {"run": "select"} for name in steps}}
    return made_up_run.make_report(folder / "report", steps, recipe).read_text()


@pytest.mark.slow
def test_a_selection_is_on_the_page(tmp_path: Path) -> None:
    recipe = corpora.write_recipe(tmp_path, RECIPE)
    done = tiny_recipe.attar("run", recipe, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "selected"
    (selected,) = json.loads((run / "report" / "report.json").read_text())["selections"]
    metrics = json.loads((run / "kept" / "result.json").read_text())["metrics"]
    assert {s["name"]: s["kept"] for s in selected["sources"]} == {
        name: counts["kept"] for name, counts in metrics["sources"].items()
    }
    titles = [place["title"].partition(":")[0] for place in selected["places"]]
    assert titles == ["Highest scores", "Just kept", "Just rejected", "Middle", "Lowest scores"]
    scores = [[chunk["score"] for chunk in place["chunks"]] for place in selected["places"]]
    assert min(scores[1]) == pytest.approx(metrics["cut"], abs=1e-6)
    assert min(scores[0]) >= max(scores[1]) >= min(scores[1]) >= max(scores[2])
    page = (run / "report" / "index.html").read_text()
    assert 'type="range"' in page
    assert "Chunks to read" in page


def test_the_markdown_twin_has_the_static_figures_and_no_texts(tmp_path: Path) -> None:
    made = made_up_selection.selection(5000)
    step = made_up_selection.write_selection(tmp_path / "run", made, "a secret sea")
    _page(tmp_path, {"kept": step})
    text = (tmp_path / "report" / "report.md").read_text()
    assert "chunks kept 2,500, 50.0 %" in text
    assert re.search(r"\| books \([\d,]+ chunks\) \| [\d,]+ \([\d.]+ %\) \| [\d.]+ % \|", text)
    assert "a secret sea" not in text


def test_a_source_without_a_name_beside_named_ones_is_not_called_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_up_selection, "SOURCES", ["", "code", "web", "talk"])
    step = made_up_selection.write_selection(tmp_path / "run", made_up_selection.selection(3000))
    _page(tmp_path, {"kept": step})
    text = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"\| \(no name\) \([\d,]+ chunks\) \|", text)
    assert "| all (" not in text


def test_a_warning_of_the_step_is_on_the_page(tmp_path: Path) -> None:
    step = made_up_selection.write_selection(tmp_path / "run", made_up_selection.selection(3000))
    result = json.loads((step / "result.json").read_text())
    result["metrics"]["warnings"] = ["are they swapped?"]
    (step / "result.json").write_text(json.dumps(result))
    assert "are they swapped?" in _page(tmp_path, {"kept": step})
    assert "are they swapped?" in (tmp_path / "report" / "report.md").read_text()


def test_vendi_scores_stand_beside_the_size_of_their_sample(tmp_path: Path) -> None:
    made = made_up_selection.selection(3000)
    step = made_up_selection.write_selection(tmp_path / "run", made)
    result = json.loads((step / "result.json").read_text())
    score = {"vendi": 31.26, "chunks": 2000, "ci95": [30.04, 32.5]}
    result["metrics"]["diversity"] = {"model": "demo:minilm-l6", "all": score, "kept": score}
    (step / "result.json").write_text(json.dumps(result))
    _page(tmp_path, {"kept": step})
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| kept chunks (2,000 chunks) | 31.3 | 30.0 to 32.5 |" in text


def test_scores_of_a_proxy_and_artifacts_without_samples_have_their_place(tmp_path: Path) -> None:
    made = made_up_selection.selection(3000)
    fate, score = made.fate.copy(), made.scored.score.copy()
    fate[:7], score[:7] = UNSCORED, np.nan
    details = Details(np.arange(3000), {"predicted": score})
    scored = replace(made.scored, score=score, read=lambda _: details)
    predicted = replace(made, scored=scored, keys=score, fate=fate)
    folders = {"kept": tmp_path / "predicted", "older": tmp_path / "older"}
    steps = {"kept": made_up_selection.write_selection(folders["kept"], predicted)}
    steps["older"] = made_up_selection.write_selection(folders["older"], made)
    (steps["older"] / "explored.json").unlink()
    page = _page(tmp_path, steps)
    assert "log p, teacher" not in page
    assert re.search(r"could not be scored</dt><dd>7<", page)
    assert page.count('type="range"') == 1
    text = (tmp_path / "report" / "report.md").read_text()
    assert "chunks kept 1,500, 50.0 %" in text.partition("### older")[2]


@pytest.mark.slow
def test_a_page_stays_below_3_mib_whatever_the_corpus(tmp_path: Path) -> None:
    made = made_up_selection.selection(1_000_000, sources=40)
    steps = {}
    for number in range(MOST_EXPLORED + 2):
        folder = tmp_path / str(number)
        text = 50 * ("<&\"'" * 9 + "\x00𝒳" * 9)
        steps[f"kept{number}"] = made_up_selection.write_selection(folder, made, text)
    page = _page(tmp_path, steps)
    assert len(page.encode()) < MOST_BYTES
    assert page.count('type="range"') == MOST_EXPLORED
    assert "random samples" in page


def test_texts_of_strangers_are_inert(tmp_path: Path) -> None:
    made = made_up_selection.selection(5000)
    hostile = made_up_selection.HOSTILE
    page = _page(
        tmp_path, {"kept": made_up_selection.write_selection(tmp_path / "run", made, hostile)}
    )
    assert "<script>document" not in page
    assert "<img" not in page
    assert not set(page) & {"\x00", "\x1b", "\u202e", "\u2028"}


def test_log_probabilities_have_one_sign(tmp_path: Path) -> None:
    made = made_up_selection.selection(3000)
    _page(tmp_path, {"kept": made_up_selection.write_selection(tmp_path / "run", made)})
    (selected,) = json.loads((tmp_path / "report" / "report.json").read_text())["selections"]
    said = [by for place in selected["places"] for chunk in place["chunks"] for by in chunk["by"]]
    assert said
    assert all((by["log_p"] < 0) == (by["log_p_of_byte"] < 0) for by in said)


def test_a_form_feed_ends_a_line() -> None:
    assert for_reading("a\fb\r\nc\rd\x00") == "a\nb\nc\nd\ufffd"


@pytest.mark.parametrize("scheme", [0, 1])
def test_the_colours_of_fates_differ_in_grey(scheme: int) -> None:
    import attar.report.html

    style = attar.report.html.HERE.joinpath("style.css").read_text()
    colours = [
        re.findall(r"#[0-9a-f]{6}", re.search(rf"--{name}: light-dark\((.*?)\)", style)[1])[scheme]
        for name in ("kept", "below", "trimmed", "short", "duplicate")
    ]
    light = sorted(_lightness(colour) for colour in colours)
    assert min(high - low for low, high in pairwise(light)) >= LEAST_APART


def _lightness(colour: str) -> float:
    """CIE L* of an sRGB colour."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    grey = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * grey ** (1 / 3) - 16
