"""Renders the page as one self-contained HTML file with style, script and pictures.

Everything from artifacts (names, labels, reasons, settings) is escaped by Jinja. The page's content
security policy allows only its own script, by hash, and no requests, so that injected markup would
have no effect.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from attar.extras import require
from attar.progress import counted, human_seconds
from attar.report import quantities
from attar.report.charts.extrapolation import extrapolation_picture, recovery_pictures
from attar.report.charts.front import budget_pictures
from attar.report.charts.pictures import comparison_pictures, training_pictures
from attar.report.charts.scores import scores_of
from attar.report.charts.seed_spread import seed_picture
from attar.report.charts.study_pictures import study_pictures
from attar.report.charts.zero_shot import zero_shot_picture
from attar.report.glossary import WORDS, word_id
from attar.report.reading import Made, base_name, number
from attar.report.sections.compression import Quantized
from attar.report.sections.measured import FORM_WORDS
from attar.report.sections.page import Page
from attar.report.sections.seed_comparisons import signed

HERE = Path(__file__).parent
MACHINE_WORDS = {
    "cpu": "CPU",
    "core_limit": "cores by affinity and control groups",
    "busy_cores": "cores busy with other programs",
    "memory_gib": "memory, GiB",
    "isa": "instruction sets",
}
WORST_SITES = 12
"""Number of sites shown; the others are collapsed."""
FIRST_ROWS = 24
"""Maximum number of rows of a study's table; a longer table is collapsed."""


@cache
def page_template() -> Any:
    """The compiled template; cached, because compilation takes longer than rendering most pages."""
    jinja2: Any = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": lambda value, name: quantities.metric_text(name, value),
        "number": quantities.number_text,
        "count": quantities.count_text,
        "counted": counted,
        "ratio": quantities.ratio_text,
        "seconds": human_seconds,
        "json": lambda content: json.dumps(content, indent=2, ensure_ascii=False),
    }
    return environment.get_template("template.html")


def html_of(page: Page, made: Sequence[Made]) -> str:
    markup: Any = require("markupsafe", "report").Markup
    style, theme, explorer = (
        (HERE / name).read_text(encoding="utf-8")
        for name in ("style.css", "theme.js", "explorer.js")
    )
    script = theme + explorer
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    by_name = {step.name: step for step in made}
    html: str = page_template().render(
        page=page,
        comparison_pictures=[comparison_pictures(each, made) for each in page.comparisons],
        study_pictures=[study_pictures(study) for study in page.studies],
        budget_pictures=[budget_pictures(budget) for budget in page.budgets],
        seed_pictures=[[seed_picture(each)] for each in page.over_seeds],
        score_charts=[scores_of(each, by_name[each.name]) for each in page.selections],
        share=quantities.share_text,
        signed=signed,
        training_pictures=[training_pictures(training) for training in page.trainings],
        recovery_pictures=[recovery_pictures(each) for each in page.recoveries],
        zero_shot_pictures=[[zero_shot_picture(each)] for each in page.zero_shots],
        extrapolation_pictures=[[extrapolation_picture(each)] for each in page.extrapolations],
        forms=FORM_WORDS,
        interval=quantities.interval_text,
        words=WORDS,
        word_id=word_id,
        base_name=base_name,
        machine_words=MACHINE_WORDS,
        calibration=_calibration_text,
        svg=markup,
        style=markup(style),
        script=markup(script),
        script_hash=f"sha256-{digest}",
        worst_sites=WORST_SITES,
        first_rows=FIRST_ROWS,
    )
    return html


def _calibration_text(step: Quantized) -> str:
    """Example: "256 examples, 8 batches, 8,123 tokens, 7.9 seconds"."""
    known = ((name, number(value)) for name, value in step.calibration.items())
    parts = [
        f"{quantities.number_text(value)} {name}" for name, value in known if value is not None
    ]
    return ", ".join(parts) or quantities.DASH
