"""Texts that a teacher wrote: counts, lengths, variety beside the originals, and a few to read."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import made_up_run
from attar.artifacts import write_json
from attar.report.quantities import NBSP
from attar.report.reading import read_made
from attar.report.sections.generated import generated

METRICS = {
    **{"texts": 200, "too_short": 3, "prompt_tokens": 64, "new_tokens": 25_000, "ended": 50},
    "distinct": {
        "texts": 180,
        "written": {"1": 0.05, "2": 0.31},
        "original": {"1": 0.08, "2": 0.52},
    },
    "diversity": {"written": {"vendi": 61.2}, "original": {"vendi": 80.0}},
}
EXAMPLE = {
    "source": "novels",
    "tokens": 120,
    "is_ended": True,
    "prompt": {"text": "It was a", "characters": 900},
    "written": {"text": "bright <b>day</b>", "characters": 700},
    "original": {"text": "dark night", "characters": 10},
}
RECIPE = {"name": "told", "steps": {"texts": {"run": "generate", "model": "demo:smollm2-135m"}}}


def test_counts_lengths_variety_and_examples_are_told(tmp_path: Path) -> None:
    folder = made_up_run.write_step(tmp_path / "run", "texts", "generate", METRICS)
    write_json(folder / "explored.json", {"texts": [EXAMPLE]})
    (found,) = generated(read_made({"texts": folder}, RECIPE))
    facts = {name: str(value).replace(NBSP, " ") for name, value in found.facts}
    assert facts == {
        "teacher": "demo:smollm2-135m",
        "texts": "200.0",
        "tokens of a prompt": "64.0",
        "new tokens of a text, mean": "125.0",
        "ended by the teacher": "25.0 %",
        "chunks too short for a prompt": "3.0",
    }
    shown = [
        (v.name, v.written.replace(NBSP, " "), v.original.replace(NBSP, " "))
        for v in found.varieties
    ]
    assert shown == [
        ("distinct 1-grams", "5.0 %", "8.0 %"),
        ("distinct 2-grams", "31.0 %", "52.0 %"),
        ("Vendi score", "61.2", "80"),
    ]
    (example,) = found.examples
    assert example.written == "bright <b>day</b>… (700 characters)"
    assert (example.prompt, example.original) == ("It was a", "dark night")
    page = made_up_run.make_report(tmp_path / "report", {"texts": folder}, RECIPE).read_text()
    assert "Texts that a teacher wrote" in page
    assert "<b>day" not in page
    assert "bright <b>day</b>" in unescape(page)


def test_a_step_that_measured_less_has_less(tmp_path: Path) -> None:
    folder = made_up_run.write_step(tmp_path / "run", "texts", "generate", {"texts": 5})
    (found,) = generated(read_made({"texts": folder}, RECIPE))
    assert (found.varieties, found.examples) == ((), ())
