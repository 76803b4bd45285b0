"""Comparison of methods over the seeds of a sweep.

Runs of two methods with the same seed form a pair (`numerics.paired`). All methods are compared
with the first one, for every metric of an evaluation. If the same methods were evaluated on several
datasets, their mean over datasets is also compared, per seed, by the first metric of each dataset.
The result is used in the report, in sweep.json and in the final output of a run.

    no difference was found between eofd and hidden over 5 seeds (eofd minus hidden: 0.4 points,
    95 % interval −0.1 to 0.9, higher in 4 of 5, p = 0.125).

The seed is part of a copy's name: `student@seed=1` is seed 1 of `student`, and in a sweep over data
`student@data=sst2,seed=1` is the same method on sst2. Models without a seed (a shared teacher) are
not included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attar.numerics.metric_names import LOWER_IS_BETTER
from attar.numerics.paired import FEWEST, Paired, Verdict, mean_over_tasks, paired
from attar.numerics.statistics import Spread, spread
from attar.progress import counted
from attar.report.quantities import MINUS, QUALITIES, fixed_text
from attar.report.reading import VARIANT_MARK, Made, base_name, number, table, variant_of

SEED = re.compile(r"(?:[\w.]+\.)?seed=\d+")
DATA = re.compile(r"(?:[\w.]+\.)?data=")
USUAL_SPLIT = "validation"
MEAN = "mean"
"""The metric of a comparison over several data sets."""

Scores = dict[str, dict[str, float]]
"""Method → seed → score."""
Found = Mapping[tuple[str, str], Mapping[str, Scores]]
"""Evaluation and data → metric → scores."""


@dataclass(frozen=True)
class Method:
    name: str
    scores: Mapping[str, float]
    """Seed → score."""
    spread: Spread
    against_first: Paired | None
    """None for the first method itself, and if the two have no common seed."""
    verdict: Verdict | None
    """Takes the direction of the metric into account: a lower perplexity is "better"."""
    sentence: str


@dataclass(frozen=True)
class SeedComparison:
    """Comparison of methods by one metric of one evaluation."""

    evaluation: str
    data: tuple[str, ...]
    """The dataset; several for a mean over them."""
    metric: str
    first: str
    """The method that the others are compared with."""
    methods: tuple[Method, ...]
    split: str = USUAL_SPLIT

    @property
    def where(self) -> str:
        """Name of the data, with the split if it is not the default."""
        names = ", ".join(self.data)
        if self.split != USUAL_SPLIT:
            names = f"{names} ({self.split})"
        return f"mean of {names}" if len(self.data) > 1 else names or self.evaluation

    @property
    def lines(self) -> tuple[str, ...]:
        """Every difference in words, with its data."""
        said = (method.sentence for method in self.methods if method.sentence)
        return tuple(f"{self.where}: {sentence}" for sentence in said)


def seed_comparisons(evaluations: Mapping[str, Mapping[str, Any]]) -> tuple[SeedComparison, ...]:
    """All comparisons of two or more methods.

    Args:
        evaluations: name of an evaluate step or of a copy → its metrics.
    """
    found: dict[tuple[str, str], dict[str, Scores]] = {}
    splits: dict[tuple[str, str], str] = {}
    for step, metrics in evaluations.items():
        data = str(table(metrics.get("data")).get("name", ""))
        split = str(table(metrics.get("data")).get("split", USUAL_SPLIT))
        judged = table(metrics.get("data")).get("metrics")
        splits[base_name(step), data] = split
        for copy, figures in table(metrics.get("models")).items():
            method, seed = method_and_seed(copy)
            for metric, quality in table(figures).items():
                value = number(table(quality).get("value"))
                if seed and value is not None and metric in (judged or figures):
                    by_metric = found.setdefault((base_name(step), data), {})
                    by_metric.setdefault(metric, {}).setdefault(method, {})[seed] = value
    single = [
        replace(_comparison(evaluation, (data,), metric, scores), split=splits[evaluation, data])
        for (evaluation, data), by_metric in found.items()
        for metric, scores in by_metric.items()
        if len(scores) > 1
    ]
    return (*single, *(mean for each in _tellable(found) for mean in _over_data(each)))


def comparisons_of(made: Sequence[Made]) -> tuple[SeedComparison, ...]:
    return seed_comparisons({step.name: step.metrics for step in made if step.run == "evaluate"})


def method_and_seed(copy: str) -> tuple[str, str]:
    """Split the name of a copy into its method and its seed, which identify pairs.

    Example:
        >>> method_and_seed("student@seed=1"), method_and_seed("int8@data=sst2,seed=1,bits=4")
        (('student', 'seed=1'), ('int8@bits=4', 'seed=1'))
        >>> method_and_seed("teacher")
        ('teacher', '')
    """
    parts = [part for part in variant_of(copy).split(",") if part]
    seeds = [match[0] for part in parts if (match := SEED.match(part))]
    others = [part for part in parts if not SEED.match(part) and not DATA.match(part)]
    method = base_name(copy) + (f"{VARIANT_MARK}{','.join(others)}" if others else "")
    return method, ",".join(seeds)


def _tellable(found: Found) -> list[Found]:
    """Groups of evaluations to average over: all together, or each separately if two of them use
    the same data (such as different splits), which would count twice."""
    if len({data for _, data in found}) == len(found):
        return [found]
    evaluations = dict.fromkeys(evaluation for evaluation, _ in found)
    return [{key: found[key] for key in found if key[0] == each} for each in evaluations]


def _over_data(found: Found) -> list[SeedComparison]:
    """Comparison of the mean over datasets, for methods that were evaluated on all of them."""
    firsts = {data: next(iter(by_metric.items())) for (_, data), by_metric in found.items()}
    if len(firsts) < 2 or any(metric in LOWER_IS_BETTER for metric, _ in firsts.values()):
        return []  # perplexities of two corpora have no common scale
    tables = {data: scores for data, (_, scores) in firsts.items()}
    shared = [m for m in next(iter(tables.values())) if all(m in t for t in tables.values())]
    means = {m: mean_over_tasks({d: t[m] for d, t in tables.items()}) for m in shared}
    means = {method: scores for method, scores in means.items() if scores}
    evaluations = ", ".join(dict.fromkeys(evaluation for evaluation, _ in found))
    return [_comparison(evaluations, tuple(tables), MEAN, means)] if len(means) > 1 else []


def _comparison(
    evaluation: str, data: tuple[str, ...], metric: str, scores: Scores
) -> SeedComparison:
    first = next(iter(scores))
    methods = tuple(_method(name, scores, first, metric) for name in scores)
    return SeedComparison(evaluation, data, metric, first, methods)


def _method(name: str, scores: Scores, first: str, metric: str) -> Method:
    own, reference = scores[name], scores[first]
    seeds = [seed for seed in own if seed in reference]
    summary = spread(list(own.values()))
    if name == first:
        return Method(name, own, summary, None, None, "")
    if not seeds:
        said = f"{name} and {first} share no seed, so they cannot be compared."
        return Method(name, own, summary, None, None, said)
    found = paired([own[seed] for seed in seeds], [reference[seed] for seed in seeds])
    said = sentence(name, first, metric, found)
    return Method(name, own, summary, found, _verdict(found, metric), said)


def _verdict(found: Paired, metric: str) -> Verdict:
    if metric in LOWER_IS_BETTER and found.within_noise is False:
        return "worse" if found.verdict == "better" else "better"
    return found.verdict


def sentence(name: str, first: str, metric: str, found: Paired) -> str:
    """A difference over seeds, in words.

    Example:
        >>> sentence("eofd", "hidden", "accuracy", paired([0.84, 0.85, 0.86], [0.83, 0.83, 0.85]))
        'no difference was found between eofd and hidden over 3 seeds (eofd minus hidden: 1.3\
 points, 95 % interval −0.1 to 2.8, higher in 3 of 3, p = 0.25, the\
 smallest possible with 3 seeds).'
    """
    unit = " points" if _in_points(metric) else ""
    of_metric = f" of {metric}" if metric not in ("accuracy", MEAN) else ""
    size = signed(found.mean, metric)
    side = "above" if found.mean > 0 else "below"
    claim = (
        f"{name} is level with {first}{of_metric.replace(' of', ' in')}"
        if size == "0"
        else f"{name} is {size.lstrip(f'+{MINUS}')}{unit}{of_metric} {side} {first}"
    )
    seeds = f"over {counted(found.n, 'seed')}"
    if found.low is None or found.high is None or found.p is None:
        return f"{claim} {seeds}: too few; at least {FEWEST} are needed."
    least = 2.0 ** (1 - found.n)
    floor = f", the smallest possible with {found.n} seeds" if found.p == least else ""
    ends = (found.low, found.high)
    if not found.within_noise:  # in the direction that the words say
        ends = sorted(map(abs, ends))
    low, high = (signed(end, metric).lstrip("+") for end in ends)
    facts = f"95 % interval {low} to {high}, higher in {found.wins} of {found.n}"
    facts += f", p = {found.p:.2g}{floor}"
    if not found.within_noise:
        return f"{claim} {seeds} ({facts})."
    difference = f"{name} minus {first}: {size.lstrip('+')}{unit}{of_metric}"
    return f"no difference was found between {name} and {first} {seeds} ({difference}, {facts})."


def signed(change: float | None, metric: str) -> str:
    """A change with its sign, in points where the metric has them; "0" for none. The end of an
    interval that is near 0 gets a digit more, so that one sees on which side it lies.

    Example:
        >>> signed(0.0123, "accuracy"), signed(-0.5, "perplexity"), signed(0.0, "f1")
        ('+1.2', '−0.500', '0')
        >>> signed(-0.0003, "accuracy")
        '−0.03'
    """
    if change is None:
        return ""
    scale, decimals = (100, (1, 2)) if _in_points(metric) else (1, (3, 4))
    texts = [fixed_text(scale * change, places, is_signed=True) for places in decimals]
    return next((text for text in texts if text[0] in f"+{MINUS}"), "0")


def _in_points(metric: str) -> bool:
    return metric in QUALITIES or metric == MEAN
