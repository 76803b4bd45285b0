"""Ticks of value axes: what the metric can reach, and no label twice."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attar.report.charts.bars import Bar, bars_svg
from attar.report.charts.curves import curves_svg, height_range
from attar.report.charts.labels import text_width
from attar.report.charts.scatter import Point, scatter_svg
from attar.report.charts.svg import FONT_PX, SVG, WIDE
from attar.report.charts.ticks import ticked
from attar.report.sections.training import Curve

NUMBER = re.compile(r"-?[\d.,]+(e[+-]?\d+)?")


def words(drawn: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(drawn).iter(f"{{{SVG}}}text")]


def labels_of(low: float, high: float, count: int, metric: str, *, is_share: bool) -> list[str]:
    return ticked(low, high, count, metric, is_share=is_share).labels


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-9, 1e6),
    st.integers(4, 6),
    st.sampled_from(["loss", "accuracy", "pearson"]),
)
def test_no_two_ticks_read_alike_and_all_lie_on_the_axis(
    low: float, width: float, count: int, metric: str
) -> None:
    high = low + max(width, 1e-6 * abs(low))
    labels = labels_of(low, high, count, metric, is_share=metric == "accuracy")
    assert len(set(labels)) == len(labels)
    slack = 1e-6 * (high - low)
    values = ticked(low, high, count, metric).values
    assert not [value for value in values if not low - slack <= value <= high + slack]
    if metric == "loss":
        assert 2 <= len(values) <= count / 0.7 + 1


def test_accuracy_is_never_marked_above_100_percent() -> None:
    points = [Point("a", "float", 1.0, 0.98, 0.95, 1.0), Point("b", "float", 2.0, 0.99, 0.97, 1.0)]
    drawn = words(scatter_svg(points, "accuracy", "size", "MiB", WIDE, "said"))
    labels = [float(word) for word in drawn if NUMBER.fullmatch(word)]
    assert 100.0 in labels
    assert max(labels) == 100.0
    curve = Curve("run", ((0.0, 0.90), (10.0, 1.0)))
    drawn = words(curves_svg([curve], "accuracy", WIDE, "said", metric="accuracy"))
    assert max(float(word) for word in drawn if NUMBER.fullmatch(word)) == 100.0
    assert labels_of(0.93, 1.02, 5, "accuracy", is_share=True)[-1] == "100"
    assert min(labels_of(-0.01, 0.09, 5, "accuracy", is_share=True), key=float) == "0"


@pytest.mark.parametrize("heights", [(0.69312, 0.69318), (0.693147, 0.693147), (1e-9, 3e-9)])
def test_a_loss_that_hardly_moves_has_ticks_that_differ(heights: tuple[float, float]) -> None:
    curve = Curve("run", ((0.0, heights[0]), (10.0, heights[1])))
    drawn = words(curves_svg([curve], "validation loss", WIDE, "said", metric="loss"))
    ticks = ticked(*height_range([curve]), 5, "loss")
    # d3 writes what Python writes (but e-9 for e-09), and none is cut off at the left edge.
    labels = {label.replace("e-0", "e-") for label in ticks.labels}
    assert labels <= {word.replace("\N{MINUS SIGN}", "-") for word in drawn}
    assert ticks.fitted(WIDE).left >= text_width(max(ticks.labels, key=len), FONT_PX) + 4
    steps = {"0", "2", "4", "6", "8", "10"}
    found = [word for word in drawn if NUMBER.fullmatch(word) and word not in steps]
    assert len(found) >= 3
    assert len(set(found)) == len(found)


def test_a_bar_named_by_a_punctuation_mark_can_be_seen() -> None:
    rows = [Bar(".", (1.0,)), Bar(",", (2.0,)), Bar("the", (3.0,))]
    drawn = words(bars_svg(rows, ["var(--ink)"], "share", WIDE, "said"))
    assert {"“.”", "“,”", "the"} <= set(drawn)
