"""The final output of a run or of a single step: results, and what to do next.

It uses the same records as the first page of the report (`report.sections`), so both are
consistent.

    results of each step         one line per step of a recipe, or a table for a single step
    comparison of models         quality with its interval, latency, size; zero-shot tasks
    verdict, what to deploy      as in the report
    next: attar predict …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from attar.numerics.metric_names import leading_first
from attar.progress import aligned
from attar.recipe.checking.references import table_of
from attar.recipe.schema import flattened
from attar.report.quantities import DASH, NBSP, number_text, text_with_interval
from attar.report.reading import Made
from attar.report.sections.comparison import Comparison, comparisons
from attar.report.sections.gates import gates
from attar.report.sections.headline import headline
from attar.report.sections.measured import ModelRow
from attar.report.sections.study import studies
from attar.report.sections.zero_shot import ZeroShot, zero_shots

BITS = ("weight_bits", "embedding_bits", "activation_bits")
FACTS: Mapping[str, tuple[str, ...]] = {
    "tokenize": ("documents", "chunks", "tokens"),
    "score": ("chunks", "tokens", "nll"),
    "generate": ("texts", "ended", "new_tokens"),
    "export_data": ("rows", "tokens", "files"),
    "select": ("chunks", "kept", "kept_tokens", "cut", "fates"),
    "train": ("steps", "validation"),
    "augment": ("rows_in", "rows_out", "words_replaced_ratio"),
    "cache": ("rows", "size_mib", "bytes_per_token"),
    "proxy": ("spearman",),
    "fold": ("variant.from", "variant.to", "folded", "num_params"),
    "quantize": ("method", *BITS, "mean_sqnr_db", "size_mib"),
    "export": ("format", "parity.label_flips", "parity.relative_error", "size_mib"),
}
"""Kind of step → metrics to print at the end of a run."""
MOST_ROWS = 12
"""Maximum number of rows of a study's first table."""
FATES = {
    "among the highest": "trimmed",
    "too short": "too short",
    "near duplicate": "near duplicates",
    "could not be scored": "without a score",
}
"""Reason why chunks of a selection were set aside → description."""


def figures_of(run: str, metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The main figures of a step with their names and limits; [] if its kind has none."""
    flat = flattened(dict(metrics))
    found = (
        pair
        for name in FACTS.get(run, ())
        for pair in _figures(name, metrics.get(name, flat.get(name)))
    )
    return [(name, text + _limit(flat, name)) for name, value in found if (text := _text(value))]


def _limit(flat: Mapping[str, Any], name: str) -> str:
    """The limit of a figure, which a step keeps beside it: `max_x` for `x`."""
    table, dot, figure = name.rpartition(".")
    limit = flat.get(f"{table}{dot}max_{figure}")
    return "" if limit is None else f" (limit {limit:g})"


def _text(value: Any) -> str:
    """Format a figure; "" for other values."""
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else ""


def first_quality(model: Mapping[str, Any]) -> tuple[str, float] | None:
    """The first metric that has a value with an interval."""
    for name in leading_first(model):
        value = table_of(model[name]).get("value")
        if isinstance(value, int | float):
            return name, value
    return None


def _figures(name: str, value: Any) -> list[tuple[str, Any]]:
    """A metric, or the figures of a table of metrics."""
    if not isinstance(value, Mapping):
        return [(name, value)]
    inside = cast("Mapping[str, Any]", value)
    if name == "validation":  # the first metric selected the checkpoint
        return [(f"{name} {metric}", inside[metric]) for metric in list(inside)[:1]]
    if name == "fates":
        return [(words, inside[fate]) for fate, words in FATES.items() if inside.get(fate)]
    return [(name, inside.get("value"))]


def findings(made: Sequence[Made], recipe: Mapping[str, Any]) -> list[str]:
    """The results of a run's steps as lines; for a single step its figures as a table."""
    compared, asked = comparisons(made), zero_shots(made)
    judged = gates(made, recipe)
    lines = [line for each in compared for line in _comparison(each)]
    lines += [line for each in asked for line in _zero_shot(each)]
    if all(step.run != "report" for step in made):  # otherwise the page has them
        lines += [pair.sentence for each in compared for pair in each.differences]
        lines += [sentence for each in asked for sentence in each.differences]
    if len(made) == 1 and not lines:
        lines = _single(made[0])
    first = headline(made, compared, judged, asked)
    if judged:
        lines += first.lines
    elif first.choice and len(made) > 1:
        lines.append(first.choice)
    return [_plain(line) for line in lines]


def _comparison(comparison: Comparison) -> list[str]:
    """All models with their quality, latency and size."""
    shape = next(iter(comparison.shapes), None)
    most = next((row.most_at_once for row in comparison.families if row.most_at_once), None)
    columns: dict[str, list[str]] = {"model": [row.name for row in comparison.families]}
    for metric in comparison.metrics:
        columns[metric] = [_quality(row, metric) for row in comparison.families]
    if shape is not None:
        columns[f"ms, {shape.batch} × {shape.tokens} tokens"] = [
            number_text(row.latency_ms) for row in comparison.families
        ]
        columns["speed"] = [
            "" if row.name == comparison.baseline else row.speed for row in comparison.families
        ]
    if most is not None:
        columns[f"texts/s, {most.batch} × {most.tokens}"] = [
            number_text(row.most_at_once.texts_per_s) if row.most_at_once else DASH
            for row in comparison.families
        ]
    columns["MiB"] = [number_text(row.size_mib) for row in comparison.families]
    columns = {name: cells for name, cells in columns.items() if {*cells} - {DASH, ""}}
    about = ", ".join(filter(None, [comparison.data, comparison.split, comparison.counted]))
    return [f"{comparison.step}: {about}".removesuffix(": "), *_indented(columns)]


def _quality(row: ModelRow, metric: str) -> str:
    quality = row.qualities.get(metric)
    if quality is None:
        return DASH
    return text_with_interval(metric, quality.value, quality.low, quality.high)


def _zero_shot(found: ZeroShot) -> list[str]:
    scores = {
        model: [
            next((f"{s.text} ({s.detail})" for s in row.scores if s.model == model), DASH)
            for row in found.rows
        ]
        for model in found.models
    }
    return [f"{found.name}:", *_indented({"task": [row.title for row in found.rows], **scores})]


def _single(step: Made) -> list[str]:
    """The figures of one step; for a study its facts and its first table."""
    pairs = [*figures_of(step.run, step.metrics)]
    lines: list[str] = []
    for study in studies([step]):
        pairs += [(name, number_text(v) if isinstance(v, int | float) else str(v))
                  for name, v in study.facts]  # fmt: skip
        for grid in study.grids[:1]:
            head = tuple(column.head for column in grid.columns)
            lines += [grid.caption, *(f"  {x}" for x in aligned([head, *grid.rows[:MOST_ROWS]]))]
            if len(grid.rows) > MOST_ROWS:
                lines.append(f"  … {len(grid.rows) - MOST_ROWS} more rows in study.json")
    return [*(f"  {line.rstrip()}" for line in aligned(pairs, names=2)), *lines] if pairs else lines


def _indented(columns: Mapping[str, Sequence[str]]) -> list[str]:
    rows = [tuple(columns), *zip(*columns.values(), strict=True)]
    return [f"  {line}" for line in aligned(rows)]


def _plain(text: str) -> str:
    return text.replace(NBSP, " ")
