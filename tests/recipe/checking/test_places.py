"""On which line a place is written."""

from __future__ import annotations

from attar.recipe.checking.mistakes import line_of, written_places


def test_each_table_of_an_array_has_its_own_lines() -> None:
    text = '[[gates]]\nmetric = "a"\n\n[[gates]]\nmetric = "b"\n[gates.more]\nx = 1\n[[other]]\n'
    lines = written_places(text)
    assert {place: line for place, line in lines.items() if place[0] == "gates"} == {
        ("gates", 0): 1,
        ("gates", 0, "metric"): 2,
        ("gates", 1): 4,
        ("gates", 1, "metric"): 5,
        ("gates", "more"): 6,
        ("gates", "more", "x"): 7,
    }
    assert lines["other", 0] == 8


def test_the_first_line_of_a_place_wins() -> None:
    """Text that only looks like a header, inside of a multi-line string, comes second."""
    lines = written_places('[steps.a]\nx = """\n[steps.a]\nx = 2\n"""\n')
    assert lines == {("steps", "a"): 1, ("steps", "a", "x"): 2}


def test_a_place_without_a_line_has_that_of_the_nearest_around_it() -> None:
    lines = written_places("[steps.a]\nmodel = { from = 'b' }\n")
    assert line_of(("steps", "a", "model", "from"), lines) == 2
    assert line_of(("steps", "a", "other"), lines) == 1
    assert line_of(("elsewhere",), lines) is None
