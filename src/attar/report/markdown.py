"""The page's twin in Markdown, for a pull request or a mail: the same figures, no pictures.

Text from artifacts is escaped: it can neither open a tag, nor a link, nor break a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attar.escaping import for_markdown
from attar.progress import human_seconds
from attar.report.quantities import (
    count_text,
    interval_text,
    metric_text,
    number_text,
    ratio_text,
)
from attar.report.reading import number
from attar.report.sections.comparison import Comparison
from attar.report.sections.headline import measured_on
from attar.report.sections.measured import FORM_WORDS, ModelRow
from attar.report.sections.page import Page

WORST_SITES = 8
STUDY_ROWS = 24
"""Rows of a study's table; report.json has all."""


def markdown_of(page: Page) -> str:
    """The whole report."""
    blocks = [
        f"# {for_markdown(page.title)}",
        f"**{for_markdown(page.headline.sentence)}**",
        for_markdown(page.headline.context),
        *(block for comparison in page.comparisons for block in _comparison(comparison)),
        *_gates(page),
        *_over_seeds(page),
        *_sweeps(page),
        *_trainings(page),
        *_studies(page),
        *_quantizations(page),
        *_budgets(page),
        *_exports(page),
        *_provenance(page),
    ]
    return "\n\n".join(blocks) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    marks = ["---" if place < text_columns else "---:" for place in range(len(head))]
    lines = [head, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _comparison(comparison: Comparison) -> list[str]:
    batches = [latency.batch for latency in comparison.families[0].latencies]
    head = ["model", "runs in", *map(for_markdown, comparison.metrics)]
    head += [f"p50 ms, batch {batch}" for batch in batches]
    head += ["MiB", "parameters", "FLOPs", "memory MiB", "faster", "smaller"]
    rows = [_model(row, comparison, batches) for row in comparison.families]
    differences = "\n".join(f"- {for_markdown(each.sentence)}" for each in comparison.differences)
    return [
        "## Models",
        f"{for_markdown(measured_on(comparison))}.",
        _table(head, rows, text_columns=2),
        f"Intervals are 95 %; faster and smaller against {for_markdown(comparison.baseline)}.",
        *([differences] if differences else []),
    ]


def _model(row: ModelRow, comparison: Comparison, batches: Sequence[int]) -> list[str]:
    cells = [for_markdown(row.name), for_markdown(FORM_WORDS.get(row.form, row.form))]
    for metric in comparison.metrics:
        quality = row.qualities.get(metric)
        ends = interval_text(metric, quality.low, quality.high) if quality else ""
        cells.append(
            metric_text(metric, quality.value if quality else None) + (f" ({ends})" if ends else "")
        )
    by_batch = {latency.batch: latency.p50_ms for latency in row.latencies}
    cells += [number_text(by_batch.get(batch)) for batch in batches]
    cells += [number_text(row.size_mib), count_text(row.num_params), count_text(row.flops)]
    cells += [number_text(row.peak_memory_mib)]
    return [*cells, ratio_text(row.speed_ratio), ratio_text(row.size_ratio)]


def _gates(page: Page) -> list[str]:
    words = {True: "met", False: "**missed**", None: "not measured"}
    rows = [
        [
            for_markdown(gate.metric),
            for_markdown(gate.condition),
            for_markdown(gate.shown),
            words[gate.is_met],
        ]
        for gate in page.gates
    ]
    head = ["metric", "promised", "measured", "verdict"]
    return ["## Gates", _table(head, rows, text_columns=4)] if rows else []


def _over_seeds(page: Page) -> list[str]:
    blocks = []
    for comparison in page.over_seeds:
        metric = comparison.metric
        rows = []
        for method in comparison.methods:
            sd = "" if method.spread.sd is None else f" ± {metric_text(metric, method.spread.sd)}"
            cells = [for_markdown(method.name), f"{metric_text(metric, method.spread.mean)}{sd}"]
            rows.append([*cells, str(method.spread.n), for_markdown(method.verdict or "")])
        said = [f"- {for_markdown(line)}" for line in comparison.lines]
        head = ["method", "mean ± standard deviation", "seeds", "verdict"]
        blocks.append(f"### {for_markdown(metric)}, {for_markdown(comparison.where)}")
        blocks += [_table(head, rows), "\n".join(said)]
    return ["## Methods over seeds", *blocks] if blocks else []


def _sweeps(page: Page) -> list[str]:
    blocks = []
    for sweep in page.sweeps:
        rows = [
            [
                for_markdown(name),
                *(metric_text(metric, figures.get(metric)) for metric in sweep.metrics),
            ]
            for name, figures in sweep.runs
        ]
        for word, pick in (
            ("mean", "mean"),
            ("standard deviation", "standard_deviation"),
            ("highest", "highest"),
        ):
            figures = (metric_text(m, getattr(spread, pick)) for m, spread in sweep.spreads.items())
            rows.append([f"**{word}**", *figures])
        blocks.append(f"### {for_markdown(sweep.name)}: {len(sweep.runs)} runs")
        blocks.append(_table(["run", *map(for_markdown, sweep.metrics)], rows))
    return ["## Sweep", *blocks] if blocks else []


def _trainings(page: Page) -> list[str]:
    lines = []
    for training in page.trainings:
        facts = [f"{words} {_fact(value)}" for words, value in training.facts]
        if training.smooth_loss:
            ends = training.smooth_loss[0].points
            facts.append(f"loss {number_text(ends[0][1])} → {number_text(ends[-1][1])}")
        lines.append(f"- **{for_markdown(training.name)}**: {'; '.join(facts) or 'no figures'}")
    return ["## Training", "\n".join(lines)] if lines else []


def _fact(value: object) -> str:
    known = number(value)
    return for_markdown(value) if known is None else number_text(known)


def _studies(page: Page) -> list[str]:
    blocks = []
    for study in page.studies:
        facts = "; ".join(f"{for_markdown(name)} {_fact(value)}" for name, value in study.facts)
        of = f" of {for_markdown(study.model)}" if study.model else ""
        blocks.append(f"### {for_markdown(study.name)}: {for_markdown(study.title)}{of}")
        blocks += [f"{facts}."] if facts else []
        for grid in study.grids:
            rows = [[for_markdown(cell) for cell in row] for row in grid.rows[:STUDY_ROWS]]
            left = len(grid.rows) - len(rows)
            more = f" (the first {len(rows)} of {len(grid.rows)})" if left else ""
            blocks.append(f"{for_markdown(grid.caption)}{more}:")
            texts = next((i for i, c in enumerate(grid.columns) if c.is_number), len(grid.columns))
            blocks.append(
                _table([for_markdown(c.head) for c in grid.columns], rows, text_columns=texts)
            )
    return ["## Studies", *blocks] if blocks else []


def _quantizations(page: Page) -> list[str]:
    blocks = []
    for step in page.quantizations:
        rows = [
            [for_markdown(site.name), for_markdown(site.kind), number_text(site.sqnr_db)]
            for site in step.sites
        ]
        blocks.append(
            f"### {for_markdown(step.name)}: {for_markdown(step.bits)}, "
            f"{for_markdown(step.method)}, "
            f"mean SQNR {number_text(step.mean_sqnr_db)} dB over {len(step.sites)} sites"
        )
        if rows:
            head = ["worst sites", "kind", "SQNR dB"]
            blocks.append(_table(head, rows[:WORST_SITES], text_columns=2))
    return ["## Quantization", *blocks] if blocks else []


def _budgets(page: Page) -> list[str]:
    blocks = []
    for budget in page.budgets:
        facts = "; ".join(f"{for_markdown(name)} {_fact(value)}" for name, value in budget.facts)
        rows = [
            [
                "**chosen**" if point.is_chosen else "",
                *map(
                    number_text,
                    (
                        point.average_bits,
                        point.size_mib,
                        point.latency_ms,
                        point.loss,
                        point.output_error,
                        point.drop,
                    ),
                ),
            ]
            for point in budget.points
        ]
        head = ["plan", "bits a weight", "MiB", "ms", "predicted error", "measured error", "drop"]
        blocks += [f"### {for_markdown(budget.name)}", f"{facts}.", _table(head, rows)]
    return ["## Mixed precision", *blocks] if blocks else []


def _exports(page: Page) -> list[str]:
    lines = []
    for step in page.exports:
        figures = [
            f"{for_markdown(name.replace('_', ' '))} {_fact(value)}"
            for name, value in step.parity.items()
        ]
        if step.num_matmuls is not None:
            figures.append(f"{step.num_int8} of {step.num_matmuls} MatMuls in int8")
        figures += [
            f"{for_markdown(name)} in float: {for_markdown(why)}"
            for name, why in step.left_in_float
        ]
        lines.append(
            f"- **{for_markdown(step.name)}** ({for_markdown(step.format)}): {'; '.join(figures)}"
        )
    return ["## Export", "\n".join(lines)] if lines else []


def _provenance(page: Page) -> list[str]:
    origin = page.provenance
    rows = [
        [
            for_markdown(step.name),
            for_markdown(step.run),
            f"`{for_markdown(step.key)}`",
            human_seconds(step.seconds),
            number_text(step.peak_rss_mib),
        ]
        for step in origin.steps
    ]
    versions = ", ".join(
        f"{for_markdown(name)} {for_markdown(version)}" for name, version in origin.versions.items()
    )
    set_aside = "\n".join(
        f"- Data {for_markdown(data.name)}, rows set aside: {count:,} × {for_markdown(reason)}"
        for data in origin.data
        for reason, count in data.set_aside.items()
    )
    return [
        "## Provenance",
        _table(["step", "run", "key", "time", "peak MiB"], rows, text_columns=3),
        for_markdown(origin.rests_on),
        *([set_aside] if set_aside else []),
        *([f"Versions: {versions}."] if versions else []),
    ]
