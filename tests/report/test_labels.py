"""No label covers another while there is room, and all stay inside the picture."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from attar.report.charts.labels import (
    LONGEST_LABEL,
    Anchor,
    Box,
    place_labels,
    shortened,
    text_width,
)

PLOT = Box(0, 0, 490, 258)


def anchor(name: str, x: float, y: float) -> Anchor:
    return Anchor(name, x, y, Box(x - 7, y - 40, x + 7, y + 40))


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(
        st.tuples(st.floats(0, 490), st.floats(0, 258)),
        min_size=1,
        max_size=8,
    )
)
def test_eight_labels_never_overlap_and_stay_inside(places: list[tuple[float, float]]) -> None:
    anchors = [anchor(f"deploy_ort_{i}", x, y) for i, (x, y) in enumerate(places)]
    placed = place_labels(anchors, PLOT, 12)
    assert len(placed) == len(places)
    for one, other in combinations(placed, 2):
        assert one.box.overlap(other.box) == 0
    assert all(label.box.is_inside(PLOT) for label in placed)


def test_models_at_the_same_point_are_all_named() -> None:
    placed = place_labels([anchor(name, 100, 100) for name in ("a", "b", "c", "d")], PLOT, 12)
    assert [label.text for label in placed] == ["a", "b", "c", "d"]
    assert not any(p.box.overlap(q.box) for p, q in combinations(placed, 2))


def test_a_lonely_label_stands_to_the_right_of_its_point() -> None:
    label = place_labels([anchor("teacher", 100, 100)], PLOT, 12)[0]
    assert label.box.left > 100
    assert label.y == 100
    assert not label.has_leader


def test_a_long_name_is_cut_in_the_middle_and_control_characters_go() -> None:
    assert len(shortened("n" * 500)) == LONGEST_LABEL
    assert shortened("a\x00b\u202ec\nd") == "a b c d"
    assert shortened("\x00") == "?"


def test_wide_letters_take_more_room() -> None:
    assert text_width("模型", 12) > text_width("ab", 12)
