"""A chart that several pages of the tests have is drawn once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

import pytest


@pytest.fixture(scope="session", autouse=True)
def charts_drawn_once() -> Iterator[None]:
    vl_convert = pytest.importorskip("vl_convert")
    draw = vl_convert.vegalite_to_svg

    @cache
    def drawn(chart: str) -> str:
        return draw(json.loads(chart))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "vegalite_to_svg", lambda chart: drawn(json.dumps(chart)))
        yield
