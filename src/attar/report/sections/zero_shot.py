"""Zero-shot results of language models: accuracy per task, with intervals and chance level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.numerics.metric_names import AVERAGES
from attar.report.quantities import interval_text, metric_text, number_text
from attar.report.reading import Made, ends_of, number, table, tables

TITLES = dict(zip(AVERAGES, ("average", "average with StoryCloze"), strict=True))
METRIC_WORDS = {"acc": "log p", "acc_norm": "log p per character"}
"""Metric → score that the answer is chosen by."""


@dataclass(frozen=True)
class Score:
    """One model on one task, or on average."""

    model: str
    value: float
    low: float
    high: float
    against_chance: str
    """above | at | below."""
    more: str = ""
    """An additional figure for the same rows."""

    @property
    def text(self) -> str:
        return metric_text("accuracy", self.value)

    @property
    def detail(self) -> str:
        """The interval, and its position relative to chance level."""
        ends = interval_text("accuracy", self.low, self.high)
        word = "" if self.against_chance == "above" else f"{self.against_chance} chance"
        return " · ".join(filter(None, [ends, word, self.more]))


@dataclass(frozen=True)
class TaskScores:
    """One task, or an average."""

    name: str
    title: str
    asked: str
    """Number and selection of rows."""
    chosen_by: str
    chance: float
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class ZeroShot:
    name: str
    models: tuple[str, ...]
    rows: tuple[TaskScores, ...]
    """The averages first."""
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Average of each model, for the headline."""
        average = self.rows[0]
        tasks = sum(row.name not in AVERAGES for row in self.rows)
        parts = [
            f"{score.model} {score.text}"
            + ("" if score.against_chance == "above" else f" ({score.against_chance} chance)")
            for score in average.scores
        ]
        return f"Average of {tasks} zero-shot tasks: {', '.join(parts)}"


def zero_shots(made: Sequence[Made]) -> tuple[ZeroShot, ...]:
    return tuple(_zero_shot(step) for step in made if is_zero_shot(step))


def is_zero_shot(step: Made) -> bool:
    return step.run == "evaluate" and bool(table(step.metrics.get("tasks")))


def _zero_shot(step: Made) -> ZeroShot:
    tasks, models = (table(step.metrics.get(name)) for name in ("tasks", "models"))
    first = table(next(iter(models.values()), None))
    wanted = {name: title for name, title in TITLES.items() if name in first}
    wanted |= {name: str(table(about).get("title", name)) for name, about in tasks.items()}
    return ZeroShot(
        name=step.name,
        models=tuple(models),
        rows=tuple(
            _row(name, title, table(tasks.get(name)), models) for name, title in wanted.items()
        ),
        differences=tuple(
            str(item.get("sentence", "")) for item in tables(step.metrics.get("differences"))
        ),
        notes=tuple(_notes(step, models)),
    )


def _row(name: str, title: str, about: Mapping[str, Any], models: Mapping[str, Any]) -> TaskScores:
    scores = [
        score
        for model, figures in models.items()
        if (score := _score(model, table(table(figures).get(name)))) is not None
    ]
    chance = next((number(table(table(f).get(name)).get("chance")) for f in models.values()), None)
    rows = number(about.get("rows"))
    return TaskScores(
        name=name,
        title=title,
        asked="" if rows is None else f"{about.get('taken')} rows",
        chosen_by=METRIC_WORDS.get(str(about.get("metric")), ""),
        chance=chance or 0.0,
        scores=tuple(scores),
    )


def _score(model: str, figures: Mapping[str, Any]) -> Score | None:
    value, (low, high) = number(figures.get("value")), ends_of(figures.get("ci95"))
    if value is None or low is None or high is None:
        return None
    perplexity = number(table(figures.get("perplexity")).get("value"))
    acc = number(figures.get("acc"))
    more = f"perplexity {number_text(perplexity)}" if perplexity is not None else ""
    if acc is not None:
        more = f"by log p {metric_text('accuracy', acc)}"
    return Score(model, value, low, high, str(figures.get("against_chance", "above")), more)


def _notes(step: Made, models: Mapping[str, Any]) -> list[str]:
    notes: list[str] = []
    for model, figures in models.items():
        if cut := number(table(figures).get("cut_off")):
            notes.append(
                f"{model}: of {cut:,.0f} requests the beginning of the context was cut off"
            )
        agreed = table(table(step.metrics.get("harness")).get(model))
        if agreed:
            notes.append(
                f"{model}: each of {agreed.get('requests'):,} log-likelihoods within "
                f"{number_text(number(agreed.get('largest_difference')), 2)} nats of lm-eval "
                f"{agreed.get('version')}"
            )
    if table(step.metrics.get("harness")).get("used") == "lm_eval":
        notes.append("log-likelihoods by lm-eval")
    return notes
