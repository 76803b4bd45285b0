"""Accuracy on zero-shot tasks, from log-likelihoods.

accuracy of a task     share of rows that are answered correctly, with a bootstrap over rows
average                unweighted mean over tasks; its interval resamples rows within each task, for
                       the given set of tasks
against chance         "above" if the interval is above chance level, "at" if it contains it,
                       "below" if it is below
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.evaluation.config import EvaluateStep
from attar.evaluation.zero_shot.rows import TaskRows
from attar.evaluation.zero_shot.tasks import STORYCLOZE
from attar.numerics.metric_names import AVERAGES
from attar.numerics.statistics import (
    Bootstrapped,
    bootstrap,
    bootstrap_interval,
    mean_of,
)
from attar.seeds import derive_seed
from attar.step import StepContext

if TYPE_CHECKING:
    from attar.scoring.shared_prefixes import Likelihoods


@dataclass(frozen=True)
class Answers:
    log_p: tuple[np.ndarray, ...]
    """Log-likelihoods of the pairs of each row."""
    predictions: np.ndarray
    """(N,); for a generated word, 0 if the model would generate it, otherwise −1."""
    by_log_p: np.ndarray
    """Predictions by log p, without length normalization."""


def answers_of(tasks: Mapping[str, TaskRows], found: Likelihoods) -> dict[str, Answers]:
    answers: dict[str, Answers] = {}
    begin = 0
    for name, rows in tasks.items():
        log_p, normed = [], []
        first = begin
        for question in rows.questions:
            end = begin + len(question.pairs)
            log_p.append(found.log_p[begin:end])
            normed.append(found.log_p[begin:end] / np.array(question.lengths))
            begin = end
        by_log_p = np.array([each.argmax() for each in log_p])
        if rows.task.writes:
            by_log_p = np.where(found.is_greedy[first:begin], 0, -1)
        by_length = np.array([each.argmax() for each in normed])
        chosen = by_length if rows.task.metric == "acc_norm" else by_log_p
        answers[name] = Answers(tuple(log_p), chosen, by_log_p)
    return answers


def metrics_of(
    config: EvaluateStep,
    context: StepContext,
    tasks: Mapping[str, TaskRows],
    answers: Mapping[str, Mapping[str, Answers]],
) -> dict[str, dict[str, Bootstrapped]]:
    """Each average and task → model → accuracy and its resamples."""
    of_tasks = {
        name: bootstrap(
            "accuracy",
            {model: found[name].predictions for model, found in answers.items()},
            [question.label for question in rows.questions],
            resamples=config.bootstrap,
            seed=_seed(config, context, name),
        )
        for name, rows in tasks.items()
    }
    averages = {
        average: {
            model: mean_of([of_tasks[name][model] for name in names], ", ".join(names))
            for model in answers
        }
        for average, names in averaged(list(tasks)).items()
    }
    return {**averages, **of_tasks}


def _seed(config: EvaluateStep, context: StepContext, task: str) -> int:
    """Seed of the resamples of a task's rows, which all models share."""
    seed = context.seed if config.seed is None else config.seed
    return derive_seed(seed, f"bootstrap {task}")


def averaged(tasks: Sequence[str]) -> dict[str, list[str]]:
    """Name of each average → its tasks.

    Example:
        >>> averaged(["piqa", "storycloze"])
        {'average': ['piqa'], 'average_with_storycloze': ['piqa', 'storycloze']}
    """
    free = [name for name in tasks if name != STORYCLOZE]
    if len(free) == len(tasks) or not free:
        return {AVERAGES[0]: list(tasks)}
    return dict(zip(AVERAGES, (free, list(tasks)), strict=True))


def entries_of(
    model: str,
    metrics: Mapping[str, Mapping[str, Bootstrapped]],
    tasks: Mapping[str, TaskRows],
    answers: Mapping[str, Answers],
) -> dict[str, Any]:
    """Metrics of one model."""
    chances = {name: rows.chance for name, rows in tasks.items()}
    for average, names in averaged(list(tasks)).items():
        chances[average] = float(np.mean([chances[name] for name in names]))
    entries: dict[str, Any] = {}
    for name, found in metrics.items():
        interval = bootstrap_interval(found[model])
        entries[name] = {
            **interval.entry,
            "chance": chances[name],
            "against_chance": against_chance(interval.low, interval.high, chances[name]),
        }
        if name in tasks and tasks[name].task.metric == "acc_norm":
            labels = np.array([question.label for question in tasks[name].questions])
            entries[name]["acc"] = float((answers[name].by_log_p == labels).mean())
    return entries


def against_chance(low: float, high: float, chance: float) -> str:
    """Position of an interval relative to chance level.

    Example:
        >>> against_chance(0.22, 0.29, 0.25), against_chance(0.26, 0.3, 0.25)
        ('at', 'above')
    """
    return "above" if low > chance else "below" if high < chance else "at"


def perplexities_of(
    config: EvaluateStep,
    context: StepContext,
    tasks: Mapping[str, TaskRows],
    answers: Mapping[str, Answers],
) -> dict[str, Any]:
    """Perplexity per word, exp(mean nats of a word), of each task with generated words."""
    found: dict[str, Any] = {}
    for name, rows in tasks.items():
        if rows.task.writes:
            nats = -np.concatenate(answers[name].log_p)
            made = bootstrap(
                *("perplexity", {"": nats}, np.ones(len(nats))),
                resamples=config.bootstrap,
                seed=_seed(config, context, name),
            )
            found[name] = bootstrap_interval(made[""]).entry
    return found
