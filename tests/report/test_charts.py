"""Pictures are inert SVG with the page's colours, drawn for two widths."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from attar.report.charts.curves import curves_svg, height_range
from attar.report.charts.scatter import Point, cost_axis, quality_range, scatter_svg
from attar.report.charts.svg import NARROW, SVG, WIDE, Shape
from attar.report.sections.training import Curve

HOSTILE = '</text><script>alert("1")</script>'


def point(name: str, cost: float, quality: float = 0.8, parent: str = "") -> Point:
    return Point(name, "float", cost, quality, quality - 0.02, quality + 0.02, parent)


def picture(points: list[Point], shape: Shape = WIDE) -> ElementTree.Element:
    drawn = scatter_svg(points, "accuracy", "latency p50", "ms", shape, "said")
    return ElementTree.fromstring(drawn)


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{{{SVG}}}text")]


def test_every_model_is_a_named_point_and_axes_have_units() -> None:
    words = texts(picture([point("teacher", 41.0), point("student", 20.0, 0.79, "teacher")]))
    assert {"teacher", "student", "latency p50, ms", "accuracy, %"} <= set(words)


@pytest.mark.parametrize("shape", [WIDE, NARROW])
def test_a_hostile_name_stays_text(shape: Shape) -> None:
    root = picture([point(HOSTILE, 41.0), point("student", 20.0)], shape)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert any("script" in text for text in texts(root))


def test_a_picture_is_one_labelled_image_without_ids_links_or_fixed_size() -> None:
    root = picture([point("teacher", 41.0)])
    assert (root.get("role"), root.get("aria-label")) == ("img", "said")
    assert root.get("viewBox") == "0 0 540 310"
    assert root.get("width") is None
    spoken = ("role", "aria")
    for element in root.iter():
        assert not [name for name in element.attrib if name == "id" or "href" in name]
        assert element is root or not [n for n in element.attrib if n.startswith(spoken)]


def test_points_say_their_figures_on_hover() -> None:
    titles = [element.text for element in picture([point("teacher", 41.0)]).iter(f"{{{SVG}}}title")]
    assert titles == ["teacher: 80.0\u00a0% (78.0 to 82.0), 41\u00a0ms"]


def test_the_cost_axis_starts_at_zero_unless_costs_span_far() -> None:
    near = cost_axis([point("a", 10), point("b", 40)], WIDE)
    far = cost_axis([point("a", 1), point("b", 100)], WIDE)
    assert (near.low, near.is_log) == (0.0, False)
    assert far.is_log
    assert far.place(far.value_at(0.3)) == pytest.approx(0.3)
    assert near.value_at(near.place(17.0)) == pytest.approx(17.0)


def test_every_interval_fits_the_quality_axis() -> None:
    points = [point("a", 1, 0.7), point("b", 2, 0.9)]
    low, high = quality_range(points)
    assert low < 0.68 < 0.92 < high


@pytest.mark.parametrize("cost", [0.0, 1e-6, 1e9])
def test_one_model_of_any_cost_can_be_drawn(cost: float) -> None:
    lonely = Point("only", "float", cost, 0.0, None, None)
    assert "only" in texts(picture([lonely]))


def test_a_form_that_is_not_known_is_drawn_all_the_same() -> None:
    assert "new" in texts(picture([Point("new", "sparse", 3.0, 0.8, None, None)]))


def test_a_curve_of_one_point_and_a_flat_one_can_be_drawn() -> None:
    for points in (((5.0, 0.0),), ((1.0, 2.0), (2.0, 2.0))):
        low, high = height_range([Curve("run", points)])
        assert low <= points[0][1] < high
        drawn = curves_svg([Curve("run", points)], "loss", WIDE, "said")
        assert "optimizer step" in drawn
