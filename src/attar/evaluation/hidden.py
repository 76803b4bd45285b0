"""Negative log-likelihood of masked tokens or spans of running text.

    spans     nll = Σ −log p(target token | previous tokens) / tokens
    masked    nll = Σ −log p(masked token | the rest of its text) / tokens

perplexity = exp(nll); for masked tokens it is also called pseudo-perplexity.

All models read the same texts with the same tokens masked, according to the first model's task and
identical in every evaluation. So all models must share a tokenizer: otherwise they would predict
different tokens. Span targets include sentinels and end tokens.

    predictions.parquet: text, tokens, and for each model <name>.nats
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from attar.errors import DataError, ModelError
from attar.evaluation.compared import Compared, Judged
from attar.evaluation.passages import LEAST_PASSAGES
from attar.scoring.forms import Form
from attar.scoring.rows import longest_first, score_batches
from attar.special_tokens import open_tokenizer, tokenizer_digest
from attar.tasks.table import Answer
from attar.tasks.task import Task
from attar.training.objectives.masked import MaskedTokens
from attar.training.objectives.spans import VALIDATION_SEED, Hidden, HiddenSpans


def _spans(compared: Compared, task: Task, form: Form, where: str) -> Hidden:
    return HiddenSpans.of(compared.split, task, form.folder, form.start_id, VALIDATION_SEED, where)


def _masked(compared: Compared, task: Task, form: Form, where: str) -> Hidden:
    return MaskedTokens.of(compared.split, task, form.folder, VALIDATION_SEED, where)


HIDDEN: Mapping[Answer, Callable[[Compared, Task, Form, str], Hidden]] = {
    "spans": _spans,
    "masked": _masked,
}
"""Objective → the rows that a model reads."""


def judge_hidden(compared: Compared, clock: Callable[[], float] = time.perf_counter) -> Judged:
    """Predict the masked tokens with all models, and compute the data's metrics and the throughput.

    Args:
        clock: returns seconds; replaced in tests.
    Raises:
        ModelError: the models have different tokenizers.
        DataError: there is only one text, so intervals are undefined.
    """
    config, data = compared.config, compared.data
    where = f"split {config.split!r} of data {data.name!r}"
    first = next(iter(compared.forms.values()))
    _require_one_tokenizer(compared)
    nats: dict[str, np.ndarray] = {}
    how: dict[str, dict[str, Any]] = {}
    tokens = np.zeros(0, np.int64)
    for name, form in compared.forms.items():
        spans = HIDDEN[first.task.kind.answer](compared, first.task, form, where)
        if len(spans) < LEAST_PASSAGES:
            raise DataError(
                f"{where} has {len(spans)} text of {spans.raw_tokens} tokens, and an "
                f"interval needs at least {LEAST_PASSAGES}; evaluate on more text"
            )
        tokens = np.array([spans.counts(np.array([row]))["labelled"] for row in range(len(spans))])
        began = clock()
        nats[name] = _nats(compared, name, form, spans)
        how[name] = {"tokens_per_s": float(spans.lengths.sum()) / (clock() - began)}
    columns = {"text": compared.numbers(len(tokens)), "tokens": tokens.astype(np.int32)}
    compared.write(columns | {f"{name}.nats": values for name, values in nats.items()})
    return {metric: compared.bootstrap(metric, nats, tokens) for metric in data.metrics}, how


def _nats(compared: Compared, name: str, form: Form, spans: Hidden) -> np.ndarray:
    """Nats of each text, (N,)."""

    def of_rows(rows: np.ndarray) -> np.ndarray:
        inputs, targets = spans.batch(rows, torch.device("cpu"))
        fed = {input: tensor.numpy() for input, tensor in inputs.items()}
        return form.nats_of_targets(fed, targets.labels.numpy())

    batches = longest_first(spans.lengths, compared.config.batch_size)
    with compared.progress("texts", len(spans)) as after_batch:
        return score_batches(
            of_rows, batches, f"model {name!r}", lambda rows: after_batch(rows, name)
        )


def _require_one_tokenizer(compared: Compared) -> None:
    digests = {
        name: tokenizer_digest(open_tokenizer(form.folder)) for name, form in compared.forms.items()
    }
    first = next(iter(digests))
    for name, digest in digests.items():
        if digest != digests[first]:
            raise ModelError(
                f"{compared.context.name}: {name!r} has another tokenizer than {first!r}, so other "
                "tokens would be hidden from it; compare models of one tokenizer, or fine-tune "
                "both and evaluate them on a task"
            )
