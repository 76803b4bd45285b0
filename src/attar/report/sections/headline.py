"""The summary of the report: a verdict, a sentence generated from the results, and a few tiles.

The sentence compares two models: the baseline (the first float model) and the *product*, which is
the deployed model to use (`verdict.fitting`), or the last model if none is deployed. Sentence and
tiles have the same figures. A difference is called real, or not measurable, only according to the
evaluation's paired interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from attar.numerics.statistics import none_seen
from attar.report.quantities import (
    AS_FAST,
    BUSY,
    compared_text,
    count_text,
    difference_text,
    interval_text,
    metric_text,
    sample_text,
    unit_text,
)
from attar.report.reading import Made, number, table
from attar.report.sections.comparison import Comparison, family_name
from attar.report.sections.gates import Gate
from attar.report.sections.lineage import FLOAT, descends, described, runtime_of
from attar.report.sections.measured import DEPLOYED, ModelRow
from attar.report.sections.verdict import (
    NOT_JUDGED,
    NOT_READY,
    Verdict,
    choice,
    fitting,
    verdict_of,
)
from attar.report.sections.zero_shot import ZeroShot


@dataclass(frozen=True)
class Tile:
    label: str
    value: str
    detail: str
    word: str = ""
    """Name of its glossary entry."""


@dataclass(frozen=True)
class Headline:
    """The summary at the top of the report."""

    sentence: str
    context: str
    tiles: tuple[Tile, ...]
    product: str = ""
    choice: str = ""
    """Which deployed model to use, and why."""
    verdict: Verdict = field(default_factory=lambda: Verdict(NOT_JUDGED, ()))

    @property
    def lines(self) -> list[str]:
        """For a terminal, where the gates stand below: the verdict, what to deploy, what to try
        next."""
        verdict = self.verdict
        return [
            verdict.word
            if verdict.word == NOT_READY and not verdict.is_useless
            else f"{verdict.word}: {verdict.reasons[0]}",
            *filter(None, [self.choice]),
            *(f"try next: {line}" for line in self.verdict.advice),
        ]


def headline(
    made: Sequence[Made],
    compared: Sequence[Comparison],
    gates: Sequence[Gate],
    asked: Sequence[ZeroShot] = (),
) -> Headline:
    """Generate the summary from the first evaluation, or from training metrics if there is none."""
    if not compared:
        found = _of_tasks(asked[0], gates) if asked else _without_evaluation(made, gates)
        return replace(found, verdict=verdict_of(gates, made))
    comparison = compared[0]
    product = next(iter(fitting(comparison, gates)), comparison.families[-1])
    baseline = comparison.family(comparison.baseline)
    if baseline is None or product.name == baseline.name:
        found = _of_one_model(made, comparison, product, gates)
    else:
        found = Headline(
            sentence=_sentence(made, comparison, product, baseline),
            context=_context(made, comparison, product, baseline),
            tiles=(*_tiles(comparison, product, baseline), *_gate_tile(gates)),
            product=product.name,
        )
    verdict = verdict_of(gates, made, comparison, product)
    return replace(found, choice=choice(comparison, gates), verdict=verdict)


def _sentence(
    made: Sequence[Made], comparison: Comparison, product: ModelRow, baseline: ModelRow
) -> str:
    parts = [
        *filter(None, [product.speed, product.size]),
        *_quality_change(comparison, product, baseline),
    ]
    before, after = described(baseline.name, made), described(product.name, made)
    is_made_of = descends(product.name, baseline.name, made)
    pair = f"{before} → {after}" if is_made_of else f"{after} against {before}"
    return f"{pair}: {', '.join(parts) or 'measured'}"


def _quality_change(comparison: Comparison, product: ModelRow, baseline: ModelRow) -> list[str]:
    metric = comparison.metric
    after, before = product.qualities.get(metric), baseline.qualities.get(metric)
    if after is None or before is None:
        return []
    words = _difference(comparison, product, baseline, after.value - before.value)
    who = [comparison.is_at_chance(row) for row in (baseline, product)]
    if all(who):  # equal chance-level models are not a success
        return [f"both at chance in {metric} ({_against_chance(comparison, product)})"]
    if any(who):
        name = (baseline, product)[who.index(True)].name
        return [words, f"{name} at chance ({_against_chance(comparison, product)})"]
    return [words]


def _against_chance(comparison: Comparison, row: ModelRow) -> str:
    metric = comparison.metric
    own, chance = row.qualities[metric].value, comparison.chance[metric]
    return (
        f"{metric_text(metric, own)}, and a constant prediction scores "
        f"{metric_text(metric, chance)}"
    )


def _difference(
    comparison: Comparison, product: ModelRow, baseline: ModelRow, change: float
) -> str:
    """The change in quality with the evaluation's verdict; if the runs of a sweep disagree, with
    their counts."""
    metric = comparison.metric
    found = [
        difference
        for difference in comparison.differences
        if family_name(difference.model) == product.name
        and family_name(difference.against) == baseline.name
        and difference.metric == metric
        and difference.within_noise is not None
    ]
    alike = [difference.no_difference_on for difference in found]
    if rows := min(filter(None, alike), default=0) if all(alike) else 0:
        return f"equal {metric} on {sample_text(metric, rows)} ({none_seen(rows, 'texts')})"
    if len(found) == 1 and (one := found[0]).value is not None:
        return difference_text(metric, one.value, one.low, one.high, one.count)
    words = difference_text(metric, change, None, None)
    if not found:
        return words
    real = sum(not difference.within_noise for difference in found)
    return f"{words} (a real difference in {real} of {len(found)} runs)"


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
    sentences.append(_runtimes(made, comparison, product, baseline))
    sentences.append(measured_on(comparison))
    return ". ".join(filter(None, sentences)) + "."


def _runtimes(
    made: Sequence[Made], comparison: Comparison, product: ModelRow, baseline: ModelRow
) -> str:
    """What each of the two ran in, because a ratio of speeds is also one of runtimes; and the ratio
    to float models in the product's runtime, if any were evaluated."""
    if product.form not in DEPLOYED:
        return ""
    before, after = (runtime_of(row.name, row.form, made) for row in (baseline, product))
    if baseline.form == product.form or product.latency_ms is None:
        return f"{product.name} runs in {after}"
    words = f"Speed compares {before} ({baseline.name}) with {after} ({product.name}) on the same "
    words += "CPU, so part of the ratio is due to the runtime"
    for row in comparison.families:
        other = runtime_of(row.name, row.form, made)
        if row.form == product.form and row.latency_ms and other != after and FLOAT in other:
            ratio = row.latency_ms / product.latency_ms
            words += f"; against {other} ({row.name}): "
            words += compared_text(ratio, "faster", "slower", AS_FAST)
    return words


def measured_on(comparison: Comparison) -> str:
    """Description of the evaluation data."""
    texts = f", {comparison.counted}" if comparison.counted else ""
    split = f" ({comparison.split}{texts})" if comparison.split else ""
    return f"Measured on {comparison.data or 'its data'}{split}"


def _tiles(
    comparison: Comparison, product: ModelRow, baseline: ModelRow | None
) -> tuple[Tile, ...]:
    tiles = []
    metric, name = comparison.metric, baseline.name if baseline else ""
    if (quality := product.qualities.get(metric)) is not None:
        ends = interval_text(metric, quality.low, quality.high)
        before = baseline.qualities.get(metric) if baseline else None
        was = f"{name} {metric_text(metric, before.value)}" if before else ""
        detail = " · ".join(filter(None, [ends, was]))
        tiles.append(Tile(metric, metric_text(metric, quality.value), detail, "interval"))
    if product.latencies:
        timed = product.latencies[0]
        label = f"latency, {timed.batch} × {timed.tokens} tokens"
        detail = product.speed if timed.undecided == BUSY else _than(product.speed, name)
        tiles.append(Tile(label, unit_text(timed.p50_ms, "ms"), detail, "latency"))
    if (most := product.most_at_once) is not None:
        label = f"throughput, {most.batch} × {most.tokens} tokens"
        tiles.append(Tile(label, unit_text(most.texts_per_s, "texts/s"), "", "throughput"))
    if product.size_mib is not None:
        detail = _than(product.size, name)
        tiles.append(Tile("size on disk", unit_text(product.size_mib, "MiB"), detail, "size"))
    if product.num_params is not None:
        was = f"{name} {count_text(baseline.num_params)}" if baseline else ""
        tiles.append(Tile("parameters", count_text(product.num_params), was, "parameters"))
    return tuple(tiles)


def _than(change: str, baseline: str) -> str:
    """Example: "6.0× faster than teacher (4.1 to 7.0×)", "the same size as teacher"."""
    if not change or not baseline:
        return ""
    words, mark, ends = change.partition(" (")
    return f"{words} {'than' if words[0].isdigit() else 'as'} {baseline}{mark}{ends}"


def _gate_tile(gates: Sequence[Gate]) -> tuple[Tile, ...]:
    if not gates:
        return ()
    met = sum(gate.is_met is True for gate in gates)
    missed = [gate.metric for gate in gates if gate.is_met is False]
    unknown = len(gates) - met - len(missed)
    unsure = sum(gate.doubt is not None for gate in gates)
    detail = "missed: " + ", ".join(missed) if missed else "all met" if not unknown else ""
    for count, words in ((unknown, "not measured"), (unsure, "uncertain")):
        if count:
            detail = "; ".join(filter(None, [detail, f"{count} {words}"]))
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
    context = "Language models on zero-shot tasks, without examples and without training on them."
    return Headline(asked.sentence, context, (*tiles, *_gate_tile(gates)), last)


def _without_evaluation(made: Sequence[Made], gates: Sequence[Gate]) -> Headline:
    trained = [step for step in made if step.run == "train"]
    tiles = [_validation_tile(step) for step in trained]
    names = ", ".join(dict.fromkeys(described(step.name, made) for step in made)) or "nothing"
    return Headline(
        sentence=f"Made: {names}",
        context='Speed, size and intervals were not measured; add a step with run = "evaluate".',
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
    return Tile(f"{step.name}, validation {metric}", metric_text(metric, value), "during training")
