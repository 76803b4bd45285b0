"""The step `report`: one page with all results of a recipe, in three formats from the same data.

index.html    for reading: self-contained, opens from a file, makes no network requests
report.json   for programs: every section as plain data
report.md     for a pull request or an email
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.artifacts import disk_errors_explained, write_json
from attar.extras import require
from attar.report.config import ReportStep
from attar.report.reading import read_made
from attar.report.sections.page import page_of
from attar.step import StepContext

NEEDED = ("jinja2", "altair", "vl_convert")


def report(config: ReportStep, context: StepContext) -> dict[str, Any]:
    """Write the report in all formats, from the artifacts of the other steps.

    Raises:
        UsageError: the extra `report` is not installed.
        ArtifactError: an artifact is damaged.
    """
    for module in NEEDED:
        require(module, "report")
    altair: Any = require("altair", "report")
    from attar.report.html import html_of
    from attar.report.markdown import markdown_of

    made = read_made(context.inputs, context.recipe)
    page = page_of(made, context.recipe, config.title, _shown(context.inputs))
    with altair.utils.schemapi.debug_mode(False):  # charts are validated whole, not their parts too
        html = html_of(page, made)
    markdown = markdown_of(html, page.title)
    write_json(context.folder / "report.json", page.as_json())
    with disk_errors_explained(context.folder, len(html) + len(markdown)):
        (context.folder / "index.html").write_text(html, encoding="utf-8")
        (context.folder / "report.md").write_text(markdown, encoding="utf-8")
    context.progress.say(f"  {page.headline.sentence}")
    return {
        "headline": page.headline.sentence,
        "product": page.headline.product,
        "models": sum(len(comparison.rows) for comparison in page.comparisons),
        "page_kib": round(len(html.encode()) / 1024, 1),
    }


def _shown(inputs: Mapping[str, Path]) -> Path | None:
    """The run's folder from where the run was started, otherwise only its last two names: a page
    may be published, and folders of its author's machine stay private."""
    for folder in inputs.values():
        run, here = folder.parent, Path.cwd()
        return run.relative_to(here) if run.is_relative_to(here) else Path(*run.parts[-2:])
    return None
