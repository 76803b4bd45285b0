"""Evaluates language models on zero-shot tasks by the likelihoods of the answers.

All requests are tokenized first, so that errors are found before any model is loaded. Models are
loaded one at a time.

    predictions.parquet    task, row, label; for each model <name>.prediction and <name>.log_p, with
                           one number per answer
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.errors import ModelError
from attar.evaluation.compare import differences
from attar.evaluation.compared import write_predictions
from attar.evaluation.config import EvaluateStep
from attar.evaluation.machine import describe_machine
from attar.evaluation.zero_shot.accuracy import (
    Answers,
    answers_of,
    entries_of,
    metrics_of,
    perplexities_of,
)
from attar.evaluation.zero_shot.rows import TaskRows, read_tasks
from attar.models.foreign import task_of
from attar.models.sources.references import resolve_model
from attar.models.sources.safe_files import read_config
from attar.numerics.metrics import require_finite
from attar.scoring.continuations import Continuation, encode_pairs, most_tokens
from attar.step import StepContext

if TYPE_CHECKING:
    from attar.scoring.shared_prefixes import Likelihoods


def evaluate_zero_shot(config: EvaluateStep, context: StepContext) -> dict[str, Any]:
    """Evaluate every model on every task.

    Raises:
        DataError: rows are missing or cannot be used.
        ModelError: a model does not predict the next token, or the harness disagrees.
        NonFiniteError: a log-likelihood is NaN or infinite.
    """
    import torch

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
    judges = 2 if config.harness == "both" else 1
    total = judges * len(pairs) * len(folders)
    title = f"{context.name}: requests"
    with context.counted(title, total, "asking zero-shot tasks") as advance:
        for name, folder in folders.items():
            after_batch = partial(advance, note=name)
            asked = _Asked(config, tasks, requests[name], after_batch)
            found, models[name], harness[name] = asked.model(name, folder, context)
            answers[name] = answers_of(tasks, found)
    metrics = metrics_of(config, context, tasks, answers)
    for name, entries in models.items():
        entries |= entries_of(name, metrics, tasks, answers[name])
        for task, perplexity in perplexities_of(config, context, tasks, answers[name]).items():
            entries[task]["perplexity"] = perplexity
    _write(context, tasks, answers)
    return {
        "tasks": {name: _describe(rows) for name, rows in tasks.items()},
        "requests": len(pairs),
        "models": models,
        "differences": differences(config.models, metrics),
        "harness": {"used": config.harness, **{n: h for n, h in harness.items() if h}},
        "machine": describe_machine(torch.get_num_threads()),
    }


def requests_of(name: str, folder: Path, pairs: Sequence[tuple[str, str]]) -> list[Continuation]:
    """Tokenize every pair for one model.

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
    """Indices of the requests of each row."""
    groups: list[list[int]] = []
    begin = 0
    for rows in tasks.values():
        for question in rows.questions:
            groups.append(list(range(begin, begin + len(question.pairs))))
            begin += len(question.pairs)
    return groups


@dataclass(frozen=True)
class _Asked:
    """Runs the requests of one model."""

    config: EvaluateStep
    tasks: Mapping[str, TaskRows]
    requests: Sequence[Continuation]
    after_batch: Callable[[int], None]

    def model(
        self, name: str, folder: Path, context: StepContext
    ) -> tuple[Likelihoods, dict[str, Any], dict[str, Any]]:
        """Log-likelihoods, properties of the model, and the comparison with the harness."""
        from attar.scoring.forms import open_form
        from attar.scoring.shared_prefixes import likelihoods, shares_prefixes

        form = open_form(folder)
        model = form.language_model()
        lost = sum(request.lost > 0 for request in self.requests)
        if lost:
            context.progress.warn(
                f"model {name!r}: {lost:,} of {len(self.requests):,} requests exceed the maximum "
                "length; their context was truncated on the left"
            )
        shares = shares_prefixes(model, self.requests)
        if not shares:
            context.progress.say(
                f"model {name!r} cannot read several continuations after one context, so every "
                "text is read in full"
            )
        began = time.perf_counter()
        if self.config.harness == "lm_eval":
            found = self._by_harness(model, folder)
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

        left = len(self.requests)

        def after_batch(texts: int) -> None:
            nonlocal left
            left -= texts
            self.after_batch(texts)

        found = harness_likelihoods(model, folder, self.tasks, after_batch=after_batch)
        self.after_batch(left)  # requests whose text was already processed
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
    """Write one row per row of each task, in order."""
    columns: dict[str, Any] = {
        "task": [name for name, rows in tasks.items() for _ in rows.rows],
        "row": [row for rows in tasks.values() for row in range(len(rows.rows))],
        "label": [each.label for rows in tasks.values() for each in rows.questions],
    }
    for model, found in answers.items():
        columns[f"{model}.prediction"] = np.concatenate([found[name].predictions for name in tasks])
        columns[f"{model}.log_p"] = [each.tolist() for name in tasks for each in found[name].log_p]
    write_predictions(context.folder, columns, {"tasks": json.dumps(list(tasks))})
