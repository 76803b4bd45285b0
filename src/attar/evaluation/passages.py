"""Negative log-likelihood of running text, per passage.

    nll = Σ −log p(token | its context) / tokens       nats per token
    perplexity = exp(nll)                bits_per_byte = Σ −log₂ p / bytes of the text

Only bits_per_byte is comparable between models with different tokenizers.

    predictions.parquet: passage, bytes, and for each model <name>.nats and <name>.tokens
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from attar.errors import DataError
from attar.evaluation.compared import Compared, Judged
from attar.evaluation.inputs import room_of
from attar.scoring.running_text import PASSAGE, Stream, check_window, read_stream, score_stream

LEAST_PASSAGES = 2


def judge_running_text(
    compared: Compared, clock: Callable[[], float] = time.perf_counter
) -> Judged:
    """Score running text with all models, and compute the data's metrics and the throughput.

    Args:
        clock: returns seconds; replaced in tests.
    Raises:
        DataError: there is only one passage, so intervals are undefined.
    """
    config, data = compared.config, compared.data
    where = f"split {config.split!r} of data {data.name!r}"
    streams = {
        name: read_stream(form.folder, compared.split.texts, where)
        for name, form in compared.forms.items()
    }
    nats: dict[str, np.ndarray] = {}
    how: dict[str, dict[str, Any]] = {}
    total = sum(len(stream.ids) - 1 for stream in streams.values())
    with compared.progress("tokens", total) as after_tokens:
        for name, form in compared.forms.items():
            context = config.context or form.task.max_length
            stride = check_window(context, config.stride, room_of(form.folder), name)
            began = clock()
            nats[name] = score_stream(
                streams[name],
                form.nats,
                context=context,
                stride=stride,
                batch_size=config.batch_size,
                after_tokens=lambda tokens, name=name: after_tokens(tokens, name),
                model=name,
            )
            rate = (len(streams[name].ids) - 1) / (clock() - began)
            how[name] = {"tokens_per_s": rate, "context": context, "stride": stride}
    _write(compared, streams, nats)
    if len(next(iter(nats.values()))) < LEAST_PASSAGES:
        raise DataError(
            f"data {data.name!r} has 1 passage of up to {PASSAGE:,} characters, and an interval "
            f"needs at least {LEAST_PASSAGES}; evaluate on more text"
        )
    metrics: dict[str, Any] = {}
    for metric in data.metrics:
        metrics[metric] = {}
        for name, stream in streams.items():
            under = stream.num_bytes if metric == "bits_per_byte" else stream.predicted
            metrics[metric] |= compared.bootstrap(metric, {name: nats[name]}, under)
    return metrics, how


def _write(
    compared: Compared, streams: Mapping[str, Stream], nats: Mapping[str, np.ndarray]
) -> None:
    """Write one row per passage, with the nats and tokens of each model."""
    size = next(iter(streams.values())).num_bytes
    columns = {"passage": compared.numbers(len(size)), "bytes": size.astype(np.int32)}
    for name, stream in streams.items():
        columns[f"{name}.nats"] = nats[name]
        columns[f"{name}.tokens"] = stream.predicted.astype(np.int32)
    compared.write(columns)
