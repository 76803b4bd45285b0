"""What was made and how good it is: one sentence computed from the results, and a few tiles.

The sentence compares two models: the baseline (the first float model measured) and the *product*,
which is the deployed model with the lowest latency; without a deployed one, the last model
measured. "Inside the noise" is said only where the evaluation's paired interval says so; without
one, nothing is claimed about chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attar.numerics.statistics import none_seen
from attar.report.quantities import (
    NBSP,
    change_text,
    compared_text,
    count_text,
    interval_text,
    metric_text,
    unit_text,
)
from attar.report.reading import Made, number, table
from attar.report.sections.comparison import Comparison, family_name
from attar.report.sections.gates import Gate
from attar.report.sections.lineage import descends, described
from attar.report.sections.measured import DEPLOYED, FORM_WORDS, ModelRow
from attar.report.sections.zero_shot import ZeroShot


@dataclass(frozen=True)
class Tile:
    """One key figure."""

    label: str
    value: str
    detail: str
    word: str = ""
    """Name of the glossary entry that explains it."""


@dataclass(frozen=True)
class Headline:
    """The first thing read."""

    sentence: str
    context: str
    tiles: tuple[Tile, ...]
    product: str = ""


def headline(
    made: Sequence[Made],
    compared: Sequence[Comparison],
    gates: Sequence[Gate],
    asked: Sequence[ZeroShot] = (),
) -> Headline:
    """The first screen's words; from the first evaluation, or from what training saw when there is
    none."""
    if not compared:
        return _of_tasks(asked[0], gates) if asked else _without_evaluation(made, gates)
    comparison = compared[0]
    product, baseline = product_of(comparison), comparison.family(comparison.baseline)
    if baseline is None or product.name == baseline.name:
        return _of_one_model(made, comparison, product, gates)
    return Headline(
        sentence=_sentence(made, comparison, product, baseline),
        context=_context(made, comparison, product, baseline),
        tiles=(*_tiles(comparison, product, baseline), *_gate_tile(gates)),
        product=product.name,
    )


def product_of(comparison: Comparison) -> ModelRow:
    """The model the recipe was run for: the fastest deployed one, else the last one measured."""
    deployed = [row for row in comparison.families if row.form in DEPLOYED]
    if not deployed:
        return comparison.families[-1]
    return min(deployed, key=lambda row: (row.latency_ms or float("inf"), row.size_mib or 0.0))


def _sentence(
    made: Sequence[Made], comparison: Comparison, product: ModelRow, baseline: ModelRow
) -> str:
    parts = []
    if product.speed_ratio is not None:
        parts.append(compared_text(product.speed_ratio, "faster", "slower", "as fast"))
    if product.size_ratio is not None:
        parts.append(compared_text(product.size_ratio, "smaller", "larger", "the same size"))
    parts.extend(_quality_change(comparison, product, baseline))
    parts = [part.replace(" ", NBSP, 1) for part in parts]
    before, after = described(baseline.name, made), described(product.name, made)
    is_made_of = descends(product.name, baseline.name, made)
    pair = f"{before} → {after}" if is_made_of else f"{after} against {before}"
    return f"{pair}: {', '.join(parts) or 'measured'}"


def _quality_change(comparison: Comparison, product: ModelRow, baseline: ModelRow) -> list[str]:
    metric = comparison.metric
    after, before = product.qualities.get(metric), baseline.qualities.get(metric)
    if after is None or before is None:
        return []
    change = change_text(metric, after.value - before.value)
    words = f"{change} in {metric}{_verdict(comparison, product, baseline)}"
    who = [comparison.is_at_chance(row) for row in (baseline, product)]
    if all(who):  # two models that know nothing are not praised for being alike
        return [f"both at chance in {metric} ({_against_chance(comparison, product)})"]
    if any(who):
        name = (baseline, product)[who.index(True)].name
        return [words, f"{name} at chance ({_against_chance(comparison, product)})"]
    return [words]


def _against_chance(comparison: Comparison, row: ModelRow) -> str:
    metric = comparison.metric
    own, chance = row.qualities[metric].value, comparison.chance[metric]
    return (
        f"{metric_text(metric, own)}, where one answer to every text scores "
        f"{metric_text(metric, chance)}"
    )


def _verdict(comparison: Comparison, product: ModelRow, baseline: ModelRow) -> str:
    """The evaluation's own verdict on chance; where the runs of a sweep disagree, their count."""
    differences = [
        difference
        for difference in comparison.differences
        if family_name(difference.model) == product.name
        and family_name(difference.against) == baseline.name
        and difference.metric == comparison.metric
        and difference.within_noise is not None
    ]
    alike = [difference.no_difference_on for difference in differences]
    if rows := min(filter(None, alike), default=0) if all(alike) else 0:
        return f" (no difference on {rows:,} texts; {none_seen(rows, 'texts')})"
    verdicts = [bool(difference.within_noise) for difference in differences]
    inside = sum(verdicts)
    if not verdicts:
        return ""
    if 0 < inside < len(verdicts):
        return f" (inside the noise in {inside} of {len(verdicts)} runs)"
    return " (inside the noise)" if inside else " (outside the noise)"


def _context(
    made: Sequence[Made], comparison: Comparison, product: ModelRow, baseline: ModelRow
) -> str:
    sentences = []
    if product.num_params and baseline.num_params:
        before, after = count_text(baseline.num_params), count_text(product.num_params)
        if before == after:
            sentences.append(f"Both have {after} parameters")
        elif descends(product.name, baseline.name, made):
            sentences.append(f"{before} parameters became {after}")
        else:
            sentences.append(f"{after} parameters against {before}")
    if product.form in DEPLOYED:
        sentences.append(f"{product.name} runs in {FORM_WORDS[product.form]}")
    sentences.append(measured_on(comparison))
    return ". ".join(sentences) + "."


def measured_on(comparison: Comparison) -> str:
    """Which texts the figures come from."""
    texts = f", {comparison.counted}" if comparison.counted else ""
    split = f" ({comparison.split}{texts})" if comparison.split else ""
    return f"Measured on {comparison.data or 'its data'}{split}"


def _tiles(
    comparison: Comparison, product: ModelRow, baseline: ModelRow | None
) -> tuple[Tile, ...]:
    tiles = []
    metric = comparison.metric
    if (quality := product.qualities.get(metric)) is not None:
        ends = interval_text(metric, quality.low, quality.high)
        was = baseline.qualities.get(metric) if baseline else None
        detail = [ends, _was(baseline, metric_text(metric, was.value)) if was else ""]
        tiles.append(
            Tile(
                metric,
                metric_text(metric, quality.value),
                " · ".join(filter(None, detail)),
                "interval",
            )
        )
    if product.latencies:
        timed = product.latencies[0]
        detail = _was(baseline, unit_text(baseline.latency_ms, "ms")) if baseline else ""
        label = f"latency, {timed.batch} × {timed.tokens} tokens"
        tiles.append(Tile(label, unit_text(timed.p50_ms, "ms"), detail, "latency"))
    if product.size_mib is not None:
        detail = _was(baseline, unit_text(baseline.size_mib, "MiB")) if baseline else ""
        tiles.append(Tile("size on disk", unit_text(product.size_mib, "MiB"), detail, "size"))
    if product.num_params is not None:
        detail = _was(baseline, count_text(baseline.num_params)) if baseline else ""
        tiles.append(Tile("parameters", count_text(product.num_params), detail, "parameters"))
    return tuple(tiles)


def _was(baseline: ModelRow | None, figure: str) -> str:
    return f"{baseline.name} {figure}" if baseline else ""


def _gate_tile(gates: Sequence[Gate]) -> tuple[Tile, ...]:
    if not gates:
        return ()
    met = sum(gate.is_met is True for gate in gates)
    missed = [gate.metric for gate in gates if gate.is_met is False]
    unknown = len(gates) - met - len(missed)
    detail = "missed: " + ", ".join(missed) if missed else "all met" if not unknown else ""
    if unknown:
        detail = "; ".join(filter(None, [detail, f"{unknown} not measured"]))
    return (Tile("quality gates", f"{met} of {len(gates)}", detail, "gate"),)


def _of_one_model(
    made: Sequence[Made], comparison: Comparison, row: ModelRow, gates: Sequence[Gate]
) -> Headline:
    quality = row.qualities.get(comparison.metric)
    at_chance = (
        f"at chance ({_against_chance(comparison, row)})" if comparison.is_at_chance(row) else ""
    )
    facts = [
        at_chance,
        f"{metric_text(comparison.metric, quality.value)} {comparison.metric}" if quality else "",
        unit_text(row.latency_ms, "ms") if row.latency_ms is not None else "",
        unit_text(row.size_mib, "MiB") if row.size_mib is not None else "",
    ]
    return Headline(
        sentence=f"{described(row.name, made)}: {', '.join(filter(None, facts)) or 'measured'}",
        context=f"{measured_on(comparison)}.",
        tiles=(*_tiles(comparison, row, None), *_gate_tile(gates)),
        product=row.name,
    )


def _of_tasks(asked: ZeroShot, gates: Sequence[Gate]) -> Headline:
    tiles = [
        Tile(f"{score.model}, {row.title}", score.text, score.detail, "interval")
        for row in asked.rows[:1]
        for score in row.scores
    ]
    last = asked.models[-1] if asked.models else ""
    context = "Language models answer questions that they were not trained on, without examples."
    return Headline(asked.sentence, context, (*tiles, *_gate_tile(gates)), last)


def _without_evaluation(made: Sequence[Made], gates: Sequence[Gate]) -> Headline:
    trained = [step for step in made if step.run == "train"]
    tiles = [_validation_tile(step) for step in trained]
    names = ", ".join(dict.fromkeys(described(step.name, made) for step in made)) or "nothing"
    return Headline(
        sentence=f"Made: {names}",
        context="No step evaluates the models, so speed, size and intervals are not known; "
        'add a step with run = "evaluate".',
        tiles=(*(tile for tile in tiles if tile), *_gate_tile(gates)),
    )


def _validation_tile(step: Made) -> Tile | None:
    figures = table(step.metrics.get("validation"))
    known = [
        (metric, value) for metric in figures if (value := number(figures[metric])) is not None
    ]
    if not known:
        return None
    metric, value = known[0]
    return Tile(f"{step.name}, validation {metric}", metric_text(metric, value), "seen in training")
