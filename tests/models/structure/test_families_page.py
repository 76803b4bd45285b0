"""The page that lists what works with which family says what the table of families says."""

from __future__ import annotations

from pathlib import Path

from attar.models.structure.families import FAMILIES

PAGE = Path(__file__).parents[3] / "docs" / "families.md"


def rows() -> dict[str, list[str]]:
    """`model_type` → the other cells of its line."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): rest for first, *rest in cells if first != "`model_type`"}


def test_the_page_lists_the_families_of_the_table_in_its_order() -> None:
    assert list(rows()) == list(FAMILIES)


def test_the_page_says_that_encoders_can_be_exported_and_others_cannot() -> None:
    exports = {name: cells[4] for name, cells in rows().items()}
    encoders = [n for n, f in FAMILIES.items() if not any(s.is_causal for s in f.stacks)]
    assert [name for name, cell in exports.items() if cell != "–"] == encoders
