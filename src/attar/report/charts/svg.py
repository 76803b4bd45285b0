"""Renders a Vega-Lite chart as an inline SVG that uses the page's colours and loads nothing.

vl-convert renders the chart offline with its bundled Vega. Colours are CSS variables
(`var(--ink)`), which are passed through, so one SVG works in light and dark mode and in print. The
SVG is then modified: the fixed size is removed (CSS sets the width, the viewBox the aspect ratio),
Vega's ARIA roles are replaced by one label for screen readers, and the description of a mark
becomes a `<title>`, which browsers show as a tooltip without a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from attar.extras import require

alt: Any = require("altair", "report")
SVG = "http://www.w3.org/2000/svg"
DROPPED = ("role", "aria-roledescription", "aria-hidden", "aria-label", "pointer-events")


@dataclass(frozen=True)
class Shape:
    """Size and margins of a drawing in pixels; the plot is what the margins leave."""

    width: int
    height: int
    left: int = 38
    top: int = 30
    right: int = 12
    bottom: int = 42

    @property
    def plot_width(self) -> int:
        return self.width - self.left - self.right

    @property
    def plot_height(self) -> int:
        return self.height - self.top - self.bottom


WIDE = Shape(width=540, height=310)
NARROW = Shape(width=350, height=300)
"""For a phone: drawn again rather than shrunk, so that letters keep their size."""
FONT_PX = 12


def drawn_of(rows: Iterable[Mapping[str, Any]]) -> Any:
    """A chart of these rows, still without a mark."""
    return alt.Chart(alt.InlineData(values=list(rows)))


def name_axis(names: Sequence[str], *, grid: bool = False) -> Any:
    """One row for each name, from the top."""
    axis = alt.Axis(title=None, domain=False, ticks=False, labelLimit=0, grid=grid)
    return alt.Y("name:N", sort=list(names), axis=axis)


def coloured(field: str, names: Iterable[str], colours: Iterable[str]) -> Any:
    """A colour for each name; the page has the legend."""
    scale = alt.Scale(domain=list(names), range=list(colours))
    return alt.Color(f"{field}:N", scale=scale, legend=None)


def fitted_scale(values: Sequence[float], air: float) -> Any:
    """From the least to the largest value, with a share `air` of that on both sides."""
    margin = air * (max(values) - min(values)) or 1.0
    domain = [min(values) - margin, max(values) + margin]
    return alt.Scale(domain=domain, nice=False, zero=False)


def value_axis(title: str, ticks: int = 5) -> Any:
    """The horizontal axis of values."""
    return alt.Axis(title=title, tickCount=ticks, labelFlush=False, titlePadding=8)


def flat_title(shape: Shape) -> dict[str, Any]:
    """A vertical axis with a horizontal title above it."""
    return {
        **{"titleAngle": 0, "titleAlign": "left", "titleAnchor": "start"},
        **{"titleBaseline": "bottom", "titleX": -shape.left + 6, "titleY": -12, "domain": False},
    }


def _dressed(chart: Any, shape: Shape) -> Any:
    """Apply the common style: no frame, faint grid, text in the page's colour."""
    return (
        chart.properties(
            width=shape.plot_width,
            height=shape.plot_height,
            background="transparent",
            padding={
                "left": shape.left,
                "top": shape.top,
                "right": shape.right,
                "bottom": shape.bottom,
            },
            autosize="none",
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelFontSize=FONT_PX,
            titleFontSize=FONT_PX,
            titleFontWeight="normal",
            labelColor="var(--muted)",
            titleColor="var(--muted)",
            gridColor="var(--grid)",
            domainColor="var(--line)",
            tickColor="var(--line)",
            tickSize=4,
            labelPadding=4,
        )
    )


def svg_of(layers: Sequence[Any], shape: Shape, label: str) -> str:
    """Draw the layers of a chart.

    Args:
        label: text alternative for screen readers.
    """
    chart = _dressed(alt.layer(*layers), shape)
    drawn = require("vl_convert", "report").vegalite_to_svg(chart.to_dict())
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(drawn)
    for element in root.iter():
        description = element.get("aria-label")
        is_mark = element.get("role") == "graphics-symbol" and element.tag != f"{{{SVG}}}g"
        for name in DROPPED:
            element.attrib.pop(name, None)
        if description and is_mark:
            title = ElementTree.Element(f"{{{SVG}}}title")
            title.text = description
            element.insert(0, title)
    for name in ("width", "height", "version", "class"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")
