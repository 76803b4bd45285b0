"""Evaluation by lm-evaluation-harness, with its own requests and log-likelihoods.

The rows are passed to its own task class, configured from our table, and the model in memory is
wrapped in its own model class. Nothing is read from the network or written to disk. If both
implementations are used, every request is compared: first the strings, then the log-likelihoods.
"""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.evaluation.zero_shot.rows import TaskRows
from attar.evaluation.zero_shot.tasks import Pair
from attar.extras import require
from attar.scoring.shared_prefixes import Likelihoods
from attar.transformers_tokenizer import read_as_transformers

SAME_NATS = 1e-3
"""Maximum difference between the two log-likelihoods of a request."""
BATCH_SIZE = 16
WORST_SHOWN = 3


def harness_pairs(tasks: Mapping[str, TaskRows]) -> list[Pair]:
    """Requests of the harness for the rows, in their order."""
    return [instance.args for instance in _instances(tasks)]


def harness_likelihoods(
    model: PreTrainedModel,
    folder: Path,
    tasks: Mapping[str, TaskRows],
    after_batch: Callable[[int], None] = lambda requests: None,
) -> Likelihoods:
    """Compute the log-likelihood of every request with the harness.

    Args:
        folder: folder of the model's tokenizer.
        after_batch: called with the number of texts just processed; may raise to stop.
    """
    with _quiet():
        judge = harness_around(model, folder)
        read = judge._model_call

        def read_and_tell(texts: Any, **settings: Any) -> Any:
            logits = read(texts, **settings)
            after_batch(len(texts))
            return logits

        judge._model_call = read_and_tell
        found = judge.loglikelihood(_instances(tasks), disable_tqdm=True)
    log_p, is_greedy = zip(*found, strict=True)
    return Likelihoods(np.array(log_p, np.float64), np.array(is_greedy, np.bool_))


def harness_around(model: PreTrainedModel, folder: Path) -> Any:
    """Wrap a model in memory in the model class of the harness."""
    models: Any = require("lm_eval.models.huggingface", "eval")
    tokenizer = copy.deepcopy(read_as_transformers(folder))  # the harness adds a padding token
    return models.HFLM(
        pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=BATCH_SIZE
    )


def require_same(
    ours: Likelihoods,
    theirs: Likelihoods,
    tasks: Mapping[str, TaskRows],
    model: str,
) -> dict[str, Any]:
    """Raise ModelError if the two log-likelihoods of a request differ by more than `SAME_NATS`;
    otherwise return their differences for the result."""
    apart = np.abs(ours.log_p - theirs.log_p)
    worst = np.argsort(-apart)[:WORST_SHOWN]
    places = [f"{name} row {row + 1}, answer {answer + 1}" for name, row, answer in _places(tasks)]
    if not apart.max() <= SAME_NATS:
        lines = [
            f"{places[i]}: {ours.log_p[i]:.5f} nats, lm-eval {theirs.log_p[i]:.5f}" for i in worst
        ]
        raise ModelError(
            f"model {model!r}: {int((~(apart <= SAME_NATS)).sum()):,} of {len(apart):,} requests "
            f"differ from lm-eval {version()} by more than {SAME_NATS:g} nats, at most by "
            f'{apart.max():.3g}; report this, and evaluate with harness = "lm_eval" meanwhile',
            lines,
        )
    return {
        "version": version(),
        "requests": len(apart),
        "largest_difference": float(apart.max()),
        "other_greedy": int((ours.is_greedy != theirs.is_greedy).sum()),
    }


def require_same_strings(ours: Sequence[Pair], tasks: Mapping[str, TaskRows]) -> None:
    """Raise ModelError if a request of the two implementations differs."""
    theirs = harness_pairs(tasks)
    for place, own, other in zip(_places(tasks), ours, theirs, strict=True):
        if tuple(own) != tuple(other):
            name, row, answer = place
            raise ModelError(
                f"task {name!r}, row {row + 1}, answer {answer + 1}: attar asks {own!r}, lm-eval "
                f"{version()} asks {other!r}; report this"
            )


def version() -> str:
    """Version of the harness."""
    return str(require("lm_eval", "eval").__version__)


def _places(tasks: Mapping[str, TaskRows]) -> Iterator[tuple[str, int, int]]:
    """Task, row number and answer number of each request."""
    for name, rows in tasks.items():
        for row, question in enumerate(rows.questions):
            for answer in range(len(question.pairs)):
                yield name, row, answer


def _instances(tasks: Mapping[str, TaskRows]) -> list[Any]:
    api: Any = require("lm_eval.api.task", "eval")
    datasets: Any = require("datasets", "eval")
    found: list[Any] = []
    with _quiet():
        for name, rows in tasks.items():
            data = datasets.Dataset.from_list([dict(row) for row in rows.rows])
            fields = {
                "task": name,
                "custom_dataset": lambda data=data: {"test": data},
                "test_split": "test",
                "output_type": "loglikelihood" if rows.task.writes else "multiple_choice",
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
                **rows.task.harness,
            }
            task = api.ConfigurableTask(config=fields)
            task.build_all_requests(limit=None, rank=0, world_size=1)
            found += task.instances
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Context manager that disables progress bars and warnings of the harness."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
