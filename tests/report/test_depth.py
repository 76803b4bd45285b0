"""Pictures of depth: one scale for all panels, and words for what stands out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from attar.report.charts.gamma_cosine import MOST_DIMENSIONS
from attar.report.charts.histogram_panels import PANEL_PX, Panel, panels_svg
from attar.report.charts.study_pictures import study_pictures
from attar.report.charts.svg import NARROW, WIDE, Shape
from attar.report.reading import read_made
from attar.report.sections.study import Study, studies
from made_up_studies import write_study


def read(folder: Path, study: str, **changes: Any) -> Study:
    made = write_study(folder, study)
    file = made / "study.json"
    content = json.loads(file.read_text())
    content["facts"] |= changes.pop("facts", {})
    file.write_text(json.dumps(content | changes))
    [found] = studies(read_made({study: made}, {"steps": {}}))
    return found


def bars(drawing: str) -> dict[str, tuple[float, float]]:
    """What is said of each bar → its width and height in pixels."""
    found = {}
    for mark in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}path"):
        said = mark.findtext("{http://www.w3.org/2000/svg}title")
        if said:
            box = re.fullmatch(r"M[-\d.]+,[-\d.]+h([\d.]+)v([\d.]+)h-[\d.]+Z", mark.get("d") or "")
            assert box, mark.get("d")
            found[said] = float(box[1]), float(box[2])
    return found


def said(drawing: str) -> list[str]:
    """What is said of each mark."""
    titles = ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}title")
    return [title.text or "" for title in titles]


@pytest.mark.parametrize("shape", [WIDE, NARROW])
def test_every_panel_has_the_scale_of_all_others(shape: Shape) -> None:
    panels = [
        Panel(0, 0, ((0.0, 0.5, 10), (0.5, 1.0, 100_000)), 9.0, "a"),
        Panel(1, 1, ((0.0, 0.5, 10),), 2.0, "b"),
        Panel(2, 0, ((1.0, 1.5, 1),), 31.0, "c"),
    ]
    names = ("one", "two", "three")
    colours = ("red", "blue")
    picture = panels_svg(panels, names, ("x", "y"), colours, (-1.0, 2.0), shape, "label")
    drawn = bars(picture)
    assert len(drawn) == 4
    first, second = drawn["a: 10 values"], drawn["b: 10 values"]
    assert first == pytest.approx(second, rel=0.02)
    assert drawn["a: 100,000 values"][1] > 3 * first[1]
    assert drawn["c: 1 values"][1] > 2  # a single value is seen
    assert max(height for _, height in drawn.values()) < PANEL_PX
    assert ">max 31<" in picture


def test_two_models_stand_side_by_side_with_their_names(tmp_path: Path) -> None:
    [picture] = study_pictures(read(tmp_path, "histograms"))
    texts = [e.text for e in ElementTree.fromstring(picture.wide).iter() if e.text]
    assert {"teacher", "student", "embedding", "block 0", "block 2"} <= set(texts)
    assert [key.text for key in picture.keys] == ["teacher", "student"]
    assert "student, block 2 up to 64" in picture.label


def test_a_line_of_two_depths_has_both_names(tmp_path: Path) -> None:
    rows = json.loads((write_study(tmp_path / "a", "histograms") / "study.json").read_text())[
        "rows"
    ]
    for row in rows:
        row["block"] = 5 if (row["model"], row["line"]) == ("teacher", 2) else row.get("block")
    [picture] = study_pictures(read(tmp_path, "histograms", rows=rows))
    assert ">block 5 | 1<" in picture.wide


def test_a_share_of_tokens_is_said_as_one_and_framed_by_the_criterion(tmp_path: Path) -> None:
    facts = {"criterion": "activation_magnitude"}
    rows = [
        {"norm": "h.1", "kind": "block", "stack": "encoder", "block": 0, "dimensions": [99]}
        | {"strengths": {"99": 0.25, "63": 0.9}}
    ]
    study = read(tmp_path, "outliers", rows=rows, facts=facts)
    heat, _ = study_pictures(study)
    assert "dimension 99, block 0, output: large in 25.0 % of the tokens" in heat.wide
    assert "large in more of the tokens" in heat.note
    assert study.grids[0].columns[-1].head == "largest share of tokens %"


def test_recognised_times_read_as_in_the_literature(tmp_path: Path) -> None:
    recognised = [
        {"stack": "decoder", "times": times, "of_blocks": 6, "num_dimensions": 1, "dimensions": [9]}
        for times in (5, 1, 0)
    ]
    study = read(tmp_path, "outliers", recognised=recognised)
    [grid] = [grid for grid in study.grids if grid.caption.startswith("How often")]
    assert [row[0] for row in grid.rows] == [
        "5 times across 6 blocks",
        "1 time across 6 blocks",
        "outside the blocks only",
    ]


def test_a_model_without_outliers_has_no_heat_map_and_no_table_of_them(tmp_path: Path) -> None:
    study = read(tmp_path, "outliers", shared=[], recognised=[], massive=[])
    assert [picture.title for picture in study_pictures(study)] == ["Largest values in the encoder"]
    assert not any("Massive" in grid.caption for grid in study.grids)


def test_outlier_dimensions_of_gamma_are_dots_with_their_values(tmp_path: Path) -> None:
    [picture] = study_pictures(read(tmp_path, "gamma"))
    assert "dimension 99: γ 1.2" in picture.wide
    assert picture.label.startswith("γ of each norm of the encoder")
    [grid] = read(tmp_path / "again", "gamma").grids
    assert grid.rows[1][-1] == "99 (1.20)"


def test_without_gamma_the_largest_dimension_is_compared_with_the_ordinary_one(
    tmp_path: Path,
) -> None:
    """Norm by norm in multiples of the median, then the norms where y reaches furthest."""
    study = read(tmp_path, "gamma_cosine")
    cosines, reach, *norms = study_pictures(study)
    assert cosines.label.startswith("Cosine of each norm's output with and without γ: embedding")
    assert "embedding: 6 to 4 times the median" in reach.wide  # 9 / 1.5 and 8 / 2
    assert "2 FFN: 10 to 4 times the median" in reach.narrow
    assert [picture.title for picture in norms] == [
        *("Block 2, after FFN: where y is largest", "Block 2, after attention: where y is largest"),
        *("Block 1, after FFN: where y is largest", "Block 1, after attention: where y is largest"),
    ]
    drawn = said(norms[0].wide)
    assert drawn.count("99: |γ| 1.50, |y| (with γ) 15, |X'| (without) 6") == 3  # a bar each
    assert len(drawn) == 3 * MOST_DIMENSIONS
    assert study.grids[1].rows[0] == ("embedding", "99", "1.50", "9", "6", "6", "4")


def test_a_study_made_before_dimensions_were_kept_shows_its_cosines(tmp_path: Path) -> None:
    new = ("largest_y", "median_y", "largest_x", "median_x", "dimensions")
    rows = [
        {key: value for key, value in row.items() if key not in new}
        for row in read(tmp_path, "gamma_cosine").rows
    ]
    study = read(tmp_path / "old", "gamma_cosine", rows=rows)
    [cosines] = study_pictures(study)
    assert cosines.title.startswith("Cosine")
    assert len(study.grids) == 1
