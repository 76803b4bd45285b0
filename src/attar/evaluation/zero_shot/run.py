"""Language models on zero-shot tasks: which answer does a model find likelier?

    accuracy of a task     share of its rows that are answered right, with a bootstrap over rows
    average                mean over the tasks, each with weight 1; its interval draws rows within
                           every task, and takes the tasks as they are
    against chance         "above" where the interval lies above what guessing scores, "at" where it
                           contains it, "below" where it lies below

Tokens of all models are made first, so that what cannot be asked is refused before any model is
loaded; models are loaded one after the other.

    predictions.parquet    task, row, label; for each model <name>.prediction and <name>.log_p, one
                           number for each answer
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.artifacts import disk_errors_explained
from attar.errors import ModelError
from attar.evaluation.compare import differences
from attar.evaluation.config import EvaluateStep
from attar.evaluation.machine import describe_machine, usable_cores
from attar.evaluation.zero_shot.rows import TaskRows, read_tasks
from attar.evaluation.zero_shot.tasks import STORYCLOZE
from attar.models.foreign import task_of
from attar.models.sources.references import resolve_model
from attar.models.sources.safe_files import read_config
from attar.numerics.metrics import require_finite
from attar.numerics.statistics import (
    Bootstrapped,
    bootstrap,
    bootstrap_interval,
    mean_of,
)
from attar.scoring.continuations import Continuation, encode_pairs, most_tokens
from attar.seeds import derive_seed
from attar.step import StepContext

if TYPE_CHECKING:
    from attar.scoring.shared_prefixes import Likelihoods

AVERAGE, WITH_STORYCLOZE = "average", "average_with_storycloze"


@dataclass(frozen=True)
class Answers:
    """What one model answers to one task."""

    log_p: tuple[np.ndarray, ...]
    """Of the pairs of each row."""
    predictions: np.ndarray
    """(N,); where a word is to be written, 0 if the model would write it, else −1."""
    by_log_p: np.ndarray
    """The same by log p alone."""


def evaluate_zero_shot(config: EvaluateStep, context: StepContext) -> dict[str, Any]:
    """Ask every model every task; see this module for the result.

    Raises:
        DataError: rows are missing or cannot be asked.
        ModelError: a model does not predict the next token, or the harness disagrees.
        NonFiniteError: a log-likelihood is NaN or infinite.
    """
    tasks = read_tasks(config, context.recipe_folder)
    folders = {
        name: resolve_model(name, context.inputs, context.recipe_folder) for name in config.models
    }
    pairs = [pair for rows in tasks.values() for each in rows.questions for pair in each.pairs]
    if config.harness != "ours":
        from attar.evaluation.zero_shot.harness import require_same_strings

        require_same_strings(pairs, tasks)
    requests = {name: requests_of(name, folder, pairs) for name, folder in folders.items()}
    models: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[str, Answers]] = {}
    harness: dict[str, Any] = {}
    with context.progress.task(f"{context.name}: requests", len(pairs) * len(folders)) as bar:
        for name, folder in folders.items():

            def after_batch(count: int, name: str = name) -> None:
                context.stop_if_asked("asking zero-shot tasks")
                bar.advance(count, name)

            asked = _Asked(config, tasks, requests[name], after_batch)
            found, models[name], harness[name] = asked.model(name, folder, context)
            answers[name] = _answers(tasks, found)
    metrics = _metrics(config, context, tasks, answers)
    for name, entries in models.items():
        entries |= _entries(name, metrics, tasks, answers[name])
        entries |= _perplexity(config, context, tasks, answers[name])
    _write(context, tasks, answers)
    found_differences = differences(config.models, metrics)
    for difference in found_differences:
        context.progress.say(difference["sentence"])
    return {
        "tasks": {name: _describe(rows) for name, rows in tasks.items()},
        "requests": len(pairs),
        "models": models,
        "differences": found_differences,
        "harness": {"used": config.harness, **{n: h for n, h in harness.items() if h}},
        "machine": describe_machine(usable_cores()),
    }


def requests_of(name: str, folder: Path, pairs: Sequence[tuple[str, str]]) -> list[Continuation]:
    """Every pair as the tokens of one model.

    Raises:
        ModelError: the model does not predict the next token.
    """
    from attar.models.architecture import config_of

    task = task_of(folder)
    if task.kind.answer != "next":
        raise ModelError(
            f"model {name!r} is made for {task.objective}, and zero-shot tasks compare the "
            "log-likelihoods of a causal language model; name one that predicts the next token"
        )
    limit = most_tokens(config_of(read_config(folder), str(folder), task, folder), folder)
    return encode_pairs(folder, pairs, limit)


def groups_of(tasks: Mapping[str, TaskRows]) -> list[list[int]]:
    """The numbers of the requests of each row."""
    groups: list[list[int]] = []
    begin = 0
    for rows in tasks.values():
        for question in rows.questions:
            groups.append(list(range(begin, begin + len(question.pairs))))
            begin += len(question.pairs)
    return groups


@dataclass(frozen=True)
class _Asked:
    """The requests of one model, and how they are answered."""

    config: EvaluateStep
    tasks: Mapping[str, TaskRows]
    requests: Sequence[Continuation]
    after_batch: Callable[[int], None]

    def model(
        self, name: str, folder: Path, context: StepContext
    ) -> tuple[Likelihoods, dict[str, Any], dict[str, Any]]:
        """What the model says, what is known of it, and how it compares with the harness."""
        from attar.scoring.forms import open_form
        from attar.scoring.shared_prefixes import likelihoods, shares_prefixes

        form = open_form(folder, usable_cores())
        model = form.language_model()
        lost = sum(request.lost > 0 for request in self.requests)
        if lost:
            context.progress.warn(
                f"model {name!r}: {lost:,} of {len(self.requests):,} requests are longer than the "
                "model reads; the beginning of their context was cut off"
            )
        shares = shares_prefixes(model)
        if not shares:
            context.progress.say(
                f"model {name!r} keeps no keys and values, so every text is read whole"
            )
        began = time.perf_counter()
        if self.config.harness == "lm_eval":
            found = self._by_harness(model, folder)
            self.after_batch(len(self.requests))
        else:
            found = likelihoods(
                model,
                self.requests,
                groups_of(self.tasks),
                batch_tokens=self.config.batch_tokens,
                after_batch=self.after_batch,
            )
        seconds = time.perf_counter() - began
        require_finite(found.log_p, f"model {name!r}")
        facts = {
            "form": form.form,
            "size_mib": form.size_mib,
            "num_params": form.num_params,
            "requests_per_s": len(self.requests) / seconds,
            "tokens": sum(len(request.fed) for request in self.requests),
            "cut_off": lost,
            "shares_prefixes": shares,
        }
        if self.config.harness != "both":
            return found, facts, {}
        from attar.evaluation.zero_shot.harness import require_same

        theirs = self._by_harness(model, folder)
        return found, facts, require_same(found, theirs, self.tasks, name)

    def _by_harness(self, model: Any, folder: Path) -> Likelihoods:
        from attar.evaluation.zero_shot.harness import harness_likelihoods

        return harness_likelihoods(model, folder, self.tasks)


def _answers(tasks: Mapping[str, TaskRows], found: Likelihoods) -> dict[str, Answers]:
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


def _metrics(
    config: EvaluateStep,
    context: StepContext,
    tasks: Mapping[str, TaskRows],
    answers: Mapping[str, Mapping[str, Answers]],
) -> dict[str, dict[str, Bootstrapped]]:
    """The averages and each task → model → accuracy and its resamples."""
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
    """Of the draws of one task's rows, which all models share."""
    seed = context.seed if config.seed is None else config.seed
    return derive_seed(seed, f"bootstrap {task}")


def averaged(tasks: Sequence[str]) -> dict[str, list[str]]:
    """Each average, and over which tasks it is. StoryCloze, whose rows not everyone may have, has
    an average of its own, so that figures of different users can be compared.

    Example:
        >>> averaged(["piqa", "storycloze"])
        {'average': ['piqa'], 'average_with_storycloze': ['piqa', 'storycloze']}
    """
    free = [name for name in tasks if name != STORYCLOZE]
    if len(free) == len(tasks) or not free:
        return {AVERAGE: list(tasks)}
    return {AVERAGE: free, WITH_STORYCLOZE: list(tasks)}


def _entries(
    model: str,
    metrics: Mapping[str, Mapping[str, Bootstrapped]],
    tasks: Mapping[str, TaskRows],
    answers: Mapping[str, Answers],
) -> dict[str, Any]:
    """What the result says of one model's accuracies."""
    chances = {name: rows.chance for name, rows in tasks.items()}
    for average, names in averaged(list(tasks)).items():
        chances[average] = float(np.mean([chances[name] for name in names]))
    entries: dict[str, Any] = {}
    for name, found in metrics.items():
        interval = bootstrap_interval(found[model])
        entries[name] = {
            "value": interval.value,
            "ci95": [interval.low, interval.high],
            "n": interval.n,
            "chance": chances[name],
            "against_chance": against_chance(interval.low, interval.high, chances[name]),
        }
        if name in tasks and tasks[name].task.metric == "acc_norm":
            labels = np.array([question.label for question in tasks[name].questions])
            entries[name]["acc"] = float((answers[name].by_log_p == labels).mean())
    return entries


def against_chance(low: float, high: float, chance: float) -> str:
    """Where an interval lies.

    Example:
        >>> against_chance(0.22, 0.29, 0.25), against_chance(0.26, 0.3, 0.25)
        ('at', 'above')
    """
    return "above" if low > chance else "below" if high < chance else "at"


def _perplexity(
    config: EvaluateStep,
    context: StepContext,
    tasks: Mapping[str, TaskRows],
    answers: Mapping[str, Answers],
) -> dict[str, Any]:
    """Of words that are to be written: exp of the mean nats of a word."""
    found: dict[str, Any] = {}
    for name, rows in tasks.items():
        if rows.task.writes:
            nats = -np.concatenate(answers[name].log_p)
            made = bootstrap(
                *("perplexity", {"": nats}, np.ones(len(nats))),
                resamples=config.bootstrap,
                seed=_seed(config, context, name),
            )
            interval = bootstrap_interval(made[""])
            ends = [interval.low, interval.high]
            found[f"{name}_perplexity"] = {"value": interval.value, "ci95": ends, "n": interval.n}
    return found


def _describe(rows: TaskRows) -> dict[str, Any]:
    task = rows.task
    return {
        "title": task.title,
        "rows": len(rows.rows),
        "taken": rows.taken,
        "source": rows.source,
        "metric": task.metric,
        "chance": rows.chance,
    }


def _write(
    context: StepContext,
    tasks: Mapping[str, TaskRows],
    answers: Mapping[str, Mapping[str, Answers]],
) -> None:
    """One row a row of each task, in their order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "task": [name for name, rows in tasks.items() for _ in rows.rows],
        "row": [row for rows in tasks.values() for row in range(len(rows.rows))],
        "label": [each.label for rows in tasks.values() for each in rows.questions],
    }
    for model, found in answers.items():
        columns[f"{model}.prediction"] = np.concatenate([found[name].predictions for name in tasks])
        columns[f"{model}.log_p"] = [
            each.tolist() for name in tasks for each in found[name].log_p
        ]
    table = pa.table(columns).replace_schema_metadata({"tasks": json.dumps(list(tasks))})
    with disk_errors_explained(context.folder):
        pq.write_table(table, context.folder / "predictions.parquet", compression="zstd")
