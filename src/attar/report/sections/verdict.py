"""The verdict (READY or NOT READY), the model to deploy, and advice if a gate is missed or unsure.

The verdict follows from the recipe's gates; a model that is no better than a constant prediction is
never ready. If the texts are too few to be sure of a met gate, READY says so. Advice follows from
where quality is lost: the ancestors of the model were evaluated too, so the step with the largest
loss is known, and its settings are suggested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from attar.numerics.metric_names import LOWER_IS_BETTER
from attar.report.quantities import change_text, unit_text
from attar.report.reading import Made, base_name, number
from attar.report.sections.comparison import Comparison, family_name
from attar.report.sections.gates import Gate
from attar.report.sections.lineage import ancestors
from attar.report.sections.measured import DEPLOYED, FORM_WORDS, ModelRow

READY, NOT_READY, NOT_JUDGED = "READY", "NOT READY", "NOT JUDGED"
DROP_EXAMPLE = ', of = "{step}.{baseline}.{metric}" and max_drop = 0.01'
MOST_EXAMPLE = " and at_most = {value:.4g}"
"""For a metric that is better the lower it is; {value} is the baseline's."""
MOST_TRIES = 3
"""Maximum number of suggestions per gate; those that help most often come first."""


@dataclass(frozen=True)
class Verdict:
    """The verdict at the top of the page."""

    word: Literal["READY", "NOT READY", "NOT JUDGED"]
    reasons: tuple[str, ...]
    advice: tuple[str, ...] = ()
    is_useless: bool = False
    """Whether the model to deploy is no better than a constant prediction."""
    is_sure: bool = True
    """Whether no 95 % interval reaches the limit of a met gate."""


def fitting(comparison: Comparison, gates: Sequence[Gate]) -> list[ModelRow]:
    """The deployed models, those that meet gates of their own first, and of those the fastest."""

    def order(row: ModelRow) -> tuple[bool, float, float]:
        return not _meets(row, gates), row.latency_ms or float("inf"), row.size_mib or 0.0

    return sorted((row for row in comparison.families if row.form in DEPLOYED), key=order)


def _of(row: ModelRow, gates: Sequence[Gate]) -> list[Gate]:
    return [gate for gate in gates if row.name in gate.metric.split(".")]


def _meets(row: ModelRow, gates: Sequence[Gate]) -> bool:
    own = _of(row, gates)
    return bool(own) and all(gate.is_met for gate in own)


def _misses(row: ModelRow, gates: Sequence[Gate]) -> bool:
    return any(gate.is_met is False for gate in _of(row, gates))


def choice(comparison: Comparison, gates: Sequence[Gate]) -> str:
    """Which deployed model to use, and why; "" if there is none, or the best misses a gate."""
    rows = fitting(comparison, gates)
    if not rows or _misses(rows[0], gates):
        return ""
    best, *others = rows
    where = f"Take {best.name} ({FORM_WORDS[best.form]})"
    if not others:
        return f"{where}, the only deployed model."
    is_timed = best.latency_ms is not None

    def cost(row: ModelRow) -> str:
        value = unit_text(row.latency_ms, "ms") if is_timed else unit_text(row.size_mib, "MiB")
        if _misses(row, gates):
            return f"{value}, misses a gate"
        return value if _of(row, gates) or not gates else f"{value}, without a gate"

    word = "fastest" if is_timed else "smallest"
    beside = "; ".join(f"{row.name} {cost(row)}" for row in others)
    is_first = all((best.latency_ms or 0) <= (row.latency_ms or float("inf")) for row in others)
    why = f"the {word} of those that meet their gates"
    if is_first:
        why = f"the {word} of the {len(rows)} deployed models"
    elif not any(_meets(row, gates) for row in others):
        why = "the only one that meets its gates"
    return f"{where}: {why} ({cost(best)}; {beside})."


def verdict_of(
    gates: Sequence[Gate],
    made: Sequence[Made] = (),
    comparison: Comparison | None = None,
    product: ModelRow | None = None,
) -> Verdict:
    """The verdict; READY only if every gate is met."""
    useless = [
        f"{row.name} is no better than a constant prediction"
        for row in (product,)
        if row and comparison and comparison.is_at_chance(row)
    ]
    if not gates and not useless:
        return Verdict(NOT_JUDGED, (_without_gates(comparison, product),))
    open_gates = [gate for gate in gates if not gate.is_met]
    if not open_gates and not useless:
        met = "its gate is met" if len(gates) == 1 else f"all {len(gates)} gates are met"
        doubts = [gate.doubt for gate in gates if gate.doubt is not None]
        if not doubts:
            return Verdict(READY, (met,))
        why = "; ".join(doubt.sentence for doubt in doubts)
        advice = tuple(dict.fromkeys(doubt.advice for doubt in doubts))
        return Verdict(READY, (f"{met}, but {why}",), advice, is_sure=False)
    advice = [
        line
        for gate in open_gates
        if gate.is_met is False
        for line in tries(gate, made, comparison)
    ]
    said = [
        f"{gate.metric} was not measured"
        if gate.is_met is None
        else f"{gate.metric} is {gate.shown}, required: {gate.condition}"
        for gate in open_gates
    ]
    return Verdict(NOT_READY, (*useless, *said), tuple(dict.fromkeys(advice)), bool(useless))


def _without_gates(comparison: Comparison | None, product: ModelRow | None) -> str:
    if comparison is None or product is None or product.name == comparison.baseline:
        return "the recipe sets no quality gates ([[gates]])"
    metric, baseline = comparison.metric, comparison.family(comparison.baseline)
    limit = DROP_EXAMPLE.format(step=comparison.step, baseline=comparison.baseline, metric=metric)
    if metric in LOWER_IS_BETTER and baseline is not None and metric in baseline.qualities:
        limit = MOST_EXAMPLE.format(value=baseline.qualities[metric].value)
    return (
        "the recipe sets no quality gates; for example [[gates]] with metric = "
        f'"{comparison.step}.{product.name}.{metric}"{limit}'
    )


@dataclass(frozen=True)
class Loss:
    """The loss of quality of one step in a chain of models."""

    step: Made
    before: str
    change: float


def worst_loss(
    model: str, metric: str, made: Sequence[Made], comparison: Comparison
) -> Loss | None:
    """The step in a model's ancestry with the largest loss relative to the previous model."""
    chain = list(reversed(ancestors(model, made)))
    if chain and isinstance(teacher := chain[0].settings.get("teacher"), str):
        chain = [step for step in made if step.name == teacher] + chain
    measured = [
        (step, row.qualities[metric].value)
        for step in chain
        if (row := comparison.family(family_name(step.name))) and metric in row.qualities
    ]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    found = [
        Loss(step, before.name, value - earlier)
        for (before, earlier), (step, value) in pairwise(measured)
        if sign * (value - earlier) < 0
    ]
    return min(found, key=lambda loss: sign * loss.change, default=None)


def tries(gate: Gate, made: Sequence[Made], comparison: Comparison | None) -> list[str]:
    """Suggestions for a missed gate; [] if there are none."""
    words = gate.metric.split(".")
    chain = next((found for word in words[1:] if (found := ancestors(word, made))), [])
    if not chain:
        return []
    if cost := next((word for word in words if word in COSTS), None):
        kinds = {step.run: step.name for step in reversed(chain)}
        known = [COSTS[cost][run].format(step=kinds[run]) for run in kinds if run in COSTS[cost]]
        first = [] if "quantize" in kinds else ['a step with run = "quantize": int8 is smaller']
        return [*first, *known][:MOST_TRIES]
    metric = words[-1]
    if worst := comparison and worst_loss(chain[0].name, metric, made, comparison):
        lost = f"{worst.step.name}: {change_text(metric, worst.change)} than {worst.before} in "
        return [f"{lost}{metric}, the largest loss among the steps. {_to_try(worst.step)}"]
    return [_to_try(chain[-1])]


def _to_try(step: Made) -> str:
    settings = "; ".join(settings_to_try(step)[:MOST_TRIES])
    return f"In [steps.{base_name(step.name)}], try {settings}."


def settings_to_try(step: Made) -> list[str]:
    """Settings of a step that may preserve more quality, as TOML with a reason, best first."""
    has = step.settings
    if step.run == "quantize":
        return _of_quantize(has)
    if step.run == "export":
        other = "onnxruntime" if has.get("format") == "openvino" else "openvino"
        return [f'format = "{other}" (another runtime rounds differently)']
    found = []
    for name in ("epochs", "max_steps", "max_tokens"):
        if (value := number(has.get(name))) is not None:
            found.append(f"{name} = {2 * value:g} (now {value:g})")
    if (rate := number(has.get("learning_rate"))) is not None:
        found.append(f"learning_rate = {3 * rate:g} or {rate / 3:g} (now {rate:g})")
    model = has.get("model")
    if isinstance(model, Mapping) and isinstance(model.get("keep_blocks"), list | tuple):
        found.append(f"more blocks in keep_blocks (now {len(model['keep_blocks'])})")
    return found


def _of_quantize(has: Mapping[str, Any]) -> list[str]:
    found = [
        f"{name} = 8 (now {bits:g})"
        for name in ("weight_bits", "activation_bits")
        if (bits := number(has.get(name))) is not None and bits < 8
    ]
    if has.get("method") != "auto":
        found.append('method = "auto" (the most accurate method without training)')
    if has.get("method") != "lsq_plus":
        found.append('method = "lsq_plus" (trains with the quantizers in place)')
    calibration = has.get("calibration")
    if isinstance(calibration, Mapping) and (count := number(calibration.get("examples"))):
        found.append(f"calibration.examples = {2 * count:g} (now {count:g})")
    return found


FEWER_BLOCKS = "fewer blocks in keep_blocks of [steps.{step}]"
OF_LATENCY = {"train": FEWER_BLOCKS, "export": "another format in [steps.{step}]"}
OF_SIZE = {"train": FEWER_BLOCKS, "quantize": "embedding_bits = 4 in [steps.{step}]"}
COSTS: Mapping[str, Mapping[str, str]] = {
    "latency_ms": OF_LATENCY,
    "latency": OF_LATENCY,
    "size_mib": OF_SIZE,
    "num_params": {"train": FEWER_BLOCKS},
    "flops": {"train": FEWER_BLOCKS},
    "peak_memory_mib": OF_SIZE,
    "model_memory_mib": OF_SIZE,
}
"""A cost that a gate limits → kind of step in the model's chain → what lowers it."""
