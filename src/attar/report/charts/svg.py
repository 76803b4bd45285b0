"""A Vega-Lite chart as an inline SVG that follows the page's colours, reads as one image, and loads
nothing.

vl-convert draws the chart with the Vega it carries, offline. Colours in a chart are CSS variables
(`var(--ink)`), which pass through as they are, so one SVG serves light, dark and print. What is
changed afterwards: the fixed size goes (CSS sets the width, the viewBox keeps the shape), the
drawing gets one label for a screen reader and loses Vega's own roles, and a mark's description
becomes a `<title>`, which browsers show on hover without any script.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from attar.extras import require

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
"""For a phone: drawn anew rather than shrunk, so that letters keep their size."""
FONT_PX = 12


def dressed(chart: Any, shape: Shape) -> Any:
    """The chart with the house's look: no frame, faint grid, letters in the page's ink."""
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


def svg_of(chart: Any, label: str) -> str:
    """Draw a chart.

    Args:
        chart: an Altair chart with a fixed size.
        label: what a screen reader says instead of the picture.
    """
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
