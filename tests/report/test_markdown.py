"""The Markdown twin is read off the page: whole tables, every section, nothing but text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import made_up_run
import made_up_studies
from attar.report.markdown import FOLDED_ROWS, markdown_of


def twin(tmp_path: Path, inputs: dict[str, Path], content: dict | None = None) -> str:
    made_up_run.make_report(tmp_path / "report", inputs, content)
    return (tmp_path / "report" / "report.md").read_text()


def test_every_row_of_a_table_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    blocks = twin(tmp_path, *made_up_run.write_sweep(tmp_path / "run")).split("\n\n")
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
    text = twin(tmp_path, inputs, {})
    assert "| m17 |" in text
    assert "the first" not in text


def test_every_section_of_the_page_is_in_the_twin_but_the_glossary(tmp_path: Path) -> None:
    page = made_up_run.make_report(tmp_path / "report", made_up_run.write_run(tmp_path / "run"))
    text = markdown_of(page.read_text(), "demo")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        *("# demo", "## Models, side by side", "### Differences, measured on the same texts"),
        *("## Quality gates", "### What to try next"),
        *("## Training", "### teacher", "### student"),
        *("## Quantization", "### int8", "## Export", "## Provenance"),
        *("### Machine", "### Versions"),
    ]
    assert "| deploy (OpenVINO) | 73.9 % (71.7 to 76.1) |" in text
    assert (
        "latency, 1 × 128: ms | latency, 1 × 128: faster | texts/s, 8 × 128 |" in text
    )  # the head of a group is said in each column
    assert "  - student distilled from teacher" in text
    assert "optimizer steps 555; epochs 3" in text
    assert "deploy: 3 left in float" in text
    assert "<" not in text


def test_a_folded_table_is_cut_and_says_so() -> None:
    rows = "".join(f"<tr><td>{n}</td></tr>" for n in range(FOLDED_ROWS + 1))
    table = f"<table><thead><tr><th>n</th></tr></thead><tbody>{rows}</tbody></table>"
    text = markdown_of(f"<details><summary>All</summary>{table}</details>", "t")
    assert f"All (the first {FOLDED_ROWS} of {FOLDED_ROWS + 1})" in text
    assert f"| {FOLDED_ROWS - 1} |" in text
    assert f"| {FOLDED_ROWS} |" not in text
    assert f"| {FOLDED_ROWS} |" in markdown_of(table, "t")


@pytest.mark.parametrize("words", ["<b>a</b>", "a | b", "[a](b)", "*a*"])
def test_what_the_page_escapes_is_escaped_again(words: str) -> None:
    escaped = words.replace("<", "&lt;")
    text = markdown_of(f"<table><thead><tr><th>{escaped}</th></tr></thead></table>", "t")
    assert words not in text
