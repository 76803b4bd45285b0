"""The report's section on budgets: from an artifact's figures alone, hostile words included."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

import made_up_run
from attar.artifacts import Result
from attar.report.charts.front import budget_pictures
from attar.report.html import html_of
from attar.report.markdown import markdown_of
from attar.report.reading import Made
from attar.report.sections.lineage import bits_word
from attar.report.sections.mixed_precision import budgets
from attar.report.sections.page import page_of


def point(bits: float, **more: Any) -> dict[str, Any]:
    row = {"average_bits": bits, "size_mib": 2.8 * bits, "latency_ms": None, "loss": 4.0**-bits}
    row |= {"output_error": None, "drop": None, "is_chosen": False, "is_uniform": False}
    return row | more


def budget(**more: Any) -> dict[str, Any]:
    points = [
        point(2.0, output_error=0.1),
        point(4.9, output_error=0.002, is_chosen=True),
        point(8.0, loss=0.0),
        point(5.0, loss=None, output_error=0.01, is_uniform=True),
    ]
    found = {"limit": {"average_bits": 5.0}, "average_bits": 4.9, "size_mib": 13.7}
    return found | {"points": points, "float_tensors": []} | more


def made(**changes: Any) -> Made:
    metrics = made_up_run.quantize_metrics() | {"budget": budget(), **changes}
    return Made("int8", Result("int8", "quantize", "key", metrics=metrics))


def test_a_step_without_a_budget_has_no_section():
    assert budgets([made(budget=None)]) == ()


def test_the_front_is_read_as_written():
    (found,) = budgets([made()])
    assert [p.average_bits for p in found.points] == [2.0, 4.9, 8.0, 5.0]
    assert [p.is_on_front for p in found.points] == [True, True, True, False]
    assert ("budget", "5 bits per weight on average") in found.facts
    assert ("size MiB", 13.7) in found.facts


def test_tensors_are_placed_by_block_and_float_ones_shown_as_such():
    weights = {
        "bert.encoder.layer.1.output.dense.weight": {"bits": 3},
        "bert.pooler.dense.weight": {"bits": 8},
    }
    sites = {"bert.encoder.layer.0.output.dense:input": {"bits": 6}}
    left = budget(float_tensors=["bert.encoder.layer.0.output.dense.weight"])
    (found,) = budgets([made(weights=weights, sites=sites, budget=left)])
    placed = {(cell.role, cell.block): cell.bits for cell in found.cells}
    assert placed == {
        ("output.dense", 1): 3,
        ("output.dense:input", 0): 6,
        ("output.dense", 0): None,
    }
    assert found.elsewhere == (("bert.pooler.dense.weight", 8),)


def test_the_front_draws_every_plan_and_marks_the_chosen():
    (found,) = budgets([made()])
    picture = budget_pictures(found)[0]
    root = ElementTree.fromstring(picture.wide)
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len([title for title in titles if "13.7" in title]) >= 2  # on the line, and marked
    assert any("error 0.01" in title for title in titles)
    assert "0.002 at 13.7\u00a0MiB, chosen" in picture.label


def test_a_latency_budget_is_drawn_over_latency():
    points = [point(32.0, latency_ms=9.0, loss=0.0), point(8.0, latency_ms=4.0, is_chosen=True)]
    given = budget(limit={"max_latency_ms": 5.0}, points=points)
    (found,) = budgets([made(budget=given)])
    assert found.is_of_latency
    assert "predicted latency" in budget_pictures(found)[0].title


@pytest.mark.parametrize("damage", [{"points": "x"}, {"limit": None}, {"points": [None, {}]}])
def test_odd_figures_are_left_out_and_break_nothing(damage):
    (found,) = budgets([made(budget=budget(**damage))])
    (whole,) = budgets([made()])
    assert len(budget_pictures(found)) <= len(budget_pictures(whole))


def test_the_page_and_its_twin_show_the_plans():
    step = made()
    content = made_up_run.recipe()
    page = page_of([step], content)
    html = html_of(page, [step])
    text = markdown_of(html, "t")
    assert '<section id="bits">' in html
    assert html.count("same bits everywhere") >= 2  # the legend, and its row
    assert "| chosen | 4.90 | 13.7 |" in text


@pytest.mark.parametrize(
    ("weight", "activation", "given", "word"),
    [
        (8, 8, None, "int8"),
        (4, 8, None, "W4A8"),
        (4.71, 8, {"average_bits": 4.94}, "W4.9A8"),
        (8, 8, {"average_bits": 9.7, "float_tensors": ["a.weight"]}, "int8 and float"),
        (32, 32, {"average_bits": 20.0, "float_tensors": ["a.weight"]}, "E8 and float"),
    ],
)
def test_the_word_for_bits_is_that_of_what_came_out(weight, activation, given, word):
    """Under a budget the recipe's own width says nothing."""
    step = made(weight_bits=weight, activation_bits=activation, embedding_bits=8, budget=given)
    assert bits_word(step) == word
