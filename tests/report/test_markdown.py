"""The Markdown twin keeps its tables whole."""

from __future__ import annotations

import json
from pathlib import Path

import made_up_run
import made_up_studies
from attar.report.markdown import markdown_of
from attar.report.reading import read_made
from attar.report.sections.page import page_of


def test_every_row_of_a_table_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path)
    blocks = markdown_of(page_of(read_made(inputs, content), content)).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) >= 5
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_all_18_rows_of_a_study_stand_in_the_twin(tmp_path: Path) -> None:
    inputs = {"leave_one_kind": made_up_studies.write_study(tmp_path, "leave_one_kind")}
    file = inputs["leave_one_kind"] / "study.json"
    content = json.loads(file.read_text())
    content["rows"] = [{**content["rows"][0], "kind": f"m{n}"} for n in range(18)]
    file.write_text(json.dumps(content))
    text = markdown_of(page_of(read_made(inputs, {}), {}))
    assert "| m17 |" in text
    assert "the first" not in text
