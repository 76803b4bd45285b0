"""Studies on the page: every one has its tables, and pictures that say what they show."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest

import made_up_run
from attar.analysis.run import STUDIES
from attar.report.charts.study_pictures import STUDY_PICTURES, study_pictures
from attar.report.reading import read_made
from attar.report.sections.study import Study, studies
from attar.report.study_tables.layouts import LAYOUTS, TITLES
from made_up_studies import DIMENSIONS, write_studies, write_study

ONE = {"steps": {}}


def read(folder: Path, study: str) -> Study:
    [found] = studies(read_made({study: write_study(folder, study)}, ONE))
    return found


@pytest.mark.parametrize("study", STUDIES)
def test_every_figure_that_a_layout_shows_is_there(study: str, tmp_path: Path) -> None:
    found = read(tmp_path, study)
    assert found.title == TITLES[study]
    assert len(found.grids) == len(LAYOUTS[study])
    for grid in found.grids:
        assert grid.rows
        for place, column in enumerate(grid.columns):
            assert any(row[place] != "–" for row in grid.rows), column
            assert len({len(row) for row in grid.rows}) == 1


def test_what_each_of_two_models_has_for_itself_is_shown_of_each(tmp_path: Path) -> None:
    folder = write_study(tmp_path, "histograms")
    content = json.loads((folder / "study.json").read_text())
    content["facts"] = {"bins_per_octave": 4, "tokens_of": {"teacher": 90, "student": 97}}
    (folder / "study.json").write_text(json.dumps(content))
    [found] = studies(read_made({"histograms": folder}, ONE))
    assert found.facts == (
        ("bins per octave", 4),
        ("tokens of teacher", 90),
        ("tokens of student", 97),
    )


@pytest.mark.parametrize("study", STUDY_PICTURES)
def test_a_picture_is_whole_in_both_sizes_and_says_what_it_shows(
    study: str, tmp_path: Path
) -> None:
    pictures = study_pictures(read(tmp_path, study))
    assert pictures
    for picture in pictures:
        for drawing, width in ((picture.wide, 540), (picture.narrow, 350)):
            root = ElementTree.fromstring(drawing)
            assert root.get("viewBox", "").split()[2] == str(width)
            assert root.get("aria-label") == picture.label
            assert "NaN" not in drawing
            assert "undefined" not in drawing


def test_the_heat_map_has_a_cell_a_norm_and_dimension_and_names_each_block_once(
    tmp_path: Path,
) -> None:
    picture, growth = study_pictures(read(tmp_path, "outliers"))
    assert growth.title == "Largest values in the encoder"
    root = ElementTree.fromstring(picture.wide)
    said = [e.text or "" for e in root.iter() if e.tag.endswith("title")]
    assert len([text for text in said if text.startswith("dimension ")]) == 7 * len(DIMENSIONS)
    texts = [e.text for e in root.iter() if e.tag.endswith("text") and e.text]
    for name in ("e", "0", "1", "2", *map(str, DIMENSIONS)):
        assert texts.count(name) == 1, name


def test_clipped_tokens_are_told_block_by_block(tmp_path: Path) -> None:
    [grid] = read(tmp_path, "clipping").grids
    assert [column.head for column in grid.columns][3:] == [
        *("accuracy", "to float", "block 0 %", "block 1 %", "block 2 %")
    ]
    assert grid.rows[1][-1] == "10.0"
    file = tmp_path / "clipping" / "study.json"
    file.write_text(file.read_text().replace('"e0"', '"embedding"'))
    [found] = studies(read_made({"clipping": file.parent}, ONE))
    heads = [column.head for column in found.grids[0].columns]
    assert heads[5:] == ["embedding %", "block 1 %", "block 2 %"]


def test_a_page_of_all_studies_has_them_in_all_three_forms(tmp_path: Path) -> None:
    inputs, content = write_studies(tmp_path / "run")
    page = unescape(made_up_run.make_report(tmp_path / "report", inputs, content).read_text())
    markdown = (tmp_path / "report" / "report.md").read_text()
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [study["study"] for study in plain["studies"]] == list(STUDIES)
    assert '<section id="studies">' in page
    for title in TITLES.values():
        assert title in page
        assert title in markdown
    assert "<b>a</b>" not in markdown


def test_words_of_texts_are_text_and_never_markup(tmp_path: Path) -> None:
    folder = write_study(tmp_path, "outlier_tokens")
    page = made_up_run.make_report(tmp_path / "report", {"outlier_tokens": folder}, ONE)
    assert "&lt;b&gt;a&lt;/b&gt;" in page.read_text()
    assert "<b>a</b>" not in page.read_text()


def test_a_study_that_is_not_known_here_shows_its_facts_and_breaks_nothing(
    tmp_path: Path,
) -> None:
    folder = write_study(tmp_path, "clipping")
    file = folder / "study.json"
    file.write_text(file.read_text().replace('"clipping"', '"new"'))
    page = made_up_run.make_report(tmp_path / "report", {"clipping": folder}, ONE).read_text()
    assert "<td" not in page.partition('id="studies"')[2].partition("</section>")[0]
    assert "0.871" in page or "87.1" in page
    damaged = json.loads(file.read_text()) | {"study": "outliers", "rows": [3, {}], "shared": None}
    file.write_text(json.dumps(damaged))
    [found] = studies(read_made({"clipping": folder}, ONE))
    assert study_pictures(found) == ()
