"""The step `evaluate`: what each model is worth, on the same rows and the same machine.

Every form alike (float, simulated, deployed) through one door, `attar.scoring.forms.open_form`.
In this order, so that what cannot work is refused before minutes are spent: data and metric names,
class names of every model, predictions, metrics with paired intervals, latency in turns, memory.
Models that write text are timed while they write (`tokens_per_s`) instead, and models that go on
with a text while they read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.data.load import data_of
from attar.data.tables import Split, TextData
from attar.errors import ResourceError, StoppedError
from attar.evaluation.compare import differences
from attar.evaluation.config import EvaluateStep, Speed
from attar.evaluation.glue import (
    bootstrapped_metrics,
    known_metrics,
    labelled_split,
    output_columns,
    predictions_from,
)
from attar.evaluation.inputs import exact_batch, longest_texts
from attar.evaluation.language_modelling import (
    bootstrapped_language_metrics,
    foresee_all,
    read_streams,
    write_passages,
)
from attar.evaluation.machine import describe_machine, usable_cores
from attar.evaluation.memory import measure_memory
from attar.evaluation.predictions import logits_over, write_predictions
from attar.evaluation.speed import first_float, measure_latency
from attar.evaluation.written import bootstrapped_scores, write_all, write_texts
from attar.models.foreign import task_of
from attar.models.sources.references import resolve_model
from attar.numerics.metrics import constant_score
from attar.numerics.statistics import Bootstrapped, bootstrap_interval
from attar.seeds import derive_seed
from attar.step import StepContext

if TYPE_CHECKING:
    from attar.scoring.forms import Form

Forms = Mapping[str, "Form"]
Metrics = Mapping[str, Mapping[str, Bootstrapped]]
SIZES_WITHOUT_TIMING = Speed()
"""Batch sizes and tokens for FLOPs and memory when nothing is timed."""


def evaluate(config: EvaluateStep, context: StepContext) -> dict[str, Any]:
    """Measure the models; see the contract for the metrics.

    Raises:
        DataError: the split is missing, empty or unlabelled.
        ModelError: a model is for other classes or another objective than the data.
        NonFiniteError: a model gives NaN or infinite logits.
    """
    from attar.scoring.forms import open_form

    data = data_of(context, config.data)
    split = labelled_split(data, config.split)
    known_metrics(data)
    folders = {
        name: resolve_model(name, context.inputs, context.recipe_folder) for name in config.models
    }
    columns = {
        name: output_columns(name, task_of(folder), data, context.progress.warn)
        for name, folder in folders.items()
    }

    speed = config.speed or SIZES_WITHOUT_TIMING
    threads = speed.threads or usable_cores()
    forms = {name: open_form(folder, threads) for name, folder in folders.items()}
    is_text = data.kind.answer != "row"
    rates: dict[str, dict[str, Any]] = {}
    if data.kind.answer == "text":
        metrics, rates = _write(config, context, forms, data, split)
    elif data.kind.answer == "next":
        metrics, rates = _foresee(config, context, forms, data, split)
    else:
        logits = _predict(config, context, forms, split, columns)
        metrics = _score(config, context, data, split, logits)

    models = {
        name: _facts(form, speed) | _intervals(name, metrics) | rates.get(name, {})
        for name, form in forms.items()
    }
    if config.speed is not None and not is_text:
        for name, entries in _time(config.speed, context, forms, split, threads).items():
            models[name] |= {"latency_ms": entries[0], "latency": entries}
    if config.memory:
        for name, entry in _weigh(speed, context, folders, split, threads).items():
            models[name] |= entry
    found = differences(config.models, metrics)
    for difference in found:
        context.progress.say(difference["sentence"])
    return {
        "data": _describe(data, config.split, split),
        "models": models,
        "differences": found,
        "machine": describe_machine(threads),
    }


def _score(
    config: EvaluateStep,
    context: StepContext,
    data: TextData,
    split: Split,
    logits: Mapping[str, np.ndarray],
) -> Metrics:
    """Keep the predictions, and judge them: metric → model → value and resamples."""
    predictions = {name: predictions_from(values, data) for name, values in logits.items()}
    write_predictions(context.folder / "predictions.parquet", data, split, predictions, logits)
    seed = context.seed if config.seed is None else config.seed
    return bootstrapped_metrics(
        predictions,
        split.labels,
        data,
        resamples=config.bootstrap,
        seed=derive_seed(seed, "bootstrap"),
    )


def _write(
    config: EvaluateStep, context: StepContext, forms: Forms, data: TextData, split: Split
) -> tuple[Metrics, dict[str, dict[str, Any]]]:
    """Let the models write, keep and judge it: metric → model → value and resamples; how fast."""
    with context.progress.task(f"{context.name}: rows", len(forms) * len(split)) as bar:

        def after_batch(rows: int, name: str) -> None:
            _stop_if_asked(context)
            bar.advance(rows, name)

        written = write_all(forms, split, config.batch_size, after_batch, context.progress.warn)
    write_texts(context.folder / "predictions.parquet", data, split, written)
    seed = context.seed if config.seed is None else config.seed
    metrics = bootstrapped_scores(
        written, data, resamples=config.bootstrap, seed=derive_seed(seed, "bootstrap")
    )
    return metrics, {name: {"tokens_per_s": one.tokens_per_s} for name, one in written.items()}


def _foresee(
    config: EvaluateStep, context: StepContext, forms: Forms, data: TextData, split: Split
) -> tuple[Metrics, dict[str, dict[str, Any]]]:
    """Let the models predict running text: metric → model → value and resamples; how they read."""
    streams = read_streams(forms, split, f"split {config.split!r} of data {data.name!r}")
    tokens = sum(len(stream.ids) - 1 for stream in streams.values())
    with context.progress.task(f"{context.name}: tokens", tokens) as bar:

        def after_tokens(tokens: int, name: str) -> None:
            _stop_if_asked(context)
            bar.advance(tokens, name)

        found = foresee_all(
            forms, streams, config.context, config.stride, config.batch_size, after_tokens
        )
    write_passages(context.folder / "predictions.parquet", data, found)
    seed = context.seed if config.seed is None else config.seed
    metrics = bootstrapped_language_metrics(
        found, data, resamples=config.bootstrap, seed=derive_seed(seed, "bootstrap")
    )
    return metrics, {name: one.how for name, one in found.items()}


def _intervals(model: str, metrics: Metrics) -> dict[str, Any]:
    """Each metric of one model with its interval."""
    intervals = {metric: bootstrap_interval(values[model]) for metric, values in metrics.items()}
    return {
        metric: {"value": found.value, "ci95": [found.low, found.high], "n": found.n}
        for metric, found in intervals.items()
    }


def _describe(data: TextData, split_name: str, split: Split) -> dict[str, Any]:
    return {
        "name": data.name,
        "split": split_name,
        "rows": len(split),
        "label_names": list(data.label_names),
        "metrics": list(data.metrics),
        "chance": {metric: constant_score(metric, split.labels) for metric in data.metrics}
        if data.kind.answer == "row"
        else {},
        "set_aside": data.set_aside_counts,
    }


def _facts(form: Form, speed: Speed) -> dict[str, Any]:
    """What is known of a model without running it; FLOPs of one text."""
    return {
        "form": form.form,
        "size_mib": form.size_mib,
        "num_params": form.num_params,
        "flops": form.flops(1, speed.tokens),
    }


def _predict(
    config: EvaluateStep,
    context: StepContext,
    forms: Forms,
    split: Split,
    columns: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Model → logits (N, C) with columns in the data's order."""
    logits: dict[str, np.ndarray] = {}
    with context.progress.task(f"{context.name}: rows", len(forms) * len(split)) as bar:

        def after_batch(rows: int) -> None:
            _stop_if_asked(context)
            bar.advance(rows, name)

        for name, form in forms.items():
            own_order = logits_over(
                name, form, split, config.batch_size, after_batch, context.progress.warn
            )
            logits[name] = own_order[:, columns[name]]
    return logits


def _time(
    speed: Speed, context: StepContext, forms: Forms, split: Split, threads: int
) -> dict[str, list[dict[str, Any]]]:
    """Model → latency at each batch size, the models taking turns."""
    turns = len(forms) * speed.rounds * len(speed.batch_sizes)

    def calls_for(batch_size: int) -> dict[str, Any]:
        texts = longest_texts(split.texts, batch_size)
        batches = {
            name: exact_batch(form.folder, form.task, texts, speed.tokens)
            for name, form in forms.items()
        }
        return {name: _forward(form, batches[name]) for name, form in forms.items()}

    against = first_float([(name, form.form) for name, form in forms.items()])
    with context.progress.task(f"{context.name}: turns timed", turns) as bar:

        def after_turn() -> None:
            _stop_if_asked(context)
            bar.advance()

        return measure_latency(speed, threads, against, calls_for, after_turn)


def _forward(form: Form, batch: Mapping[str, np.ndarray]) -> Any:
    return lambda: form.logits(batch)


def _weigh(
    speed: Speed,
    context: StepContext,
    folders: Mapping[str, Path],
    split: Split,
    threads: int,
) -> dict[str, dict[str, Any]]:
    """Model → peak memory. A measurement that fails is said and left out: the rest stands."""
    texts: Sequence[tuple[str, ...]] = longest_texts(split.texts, max(speed.batch_sizes))
    found: dict[str, dict[str, Any]] = {}
    with context.progress.task(f"{context.name}: memory", len(folders)) as bar:
        for name, folder in folders.items():
            _stop_if_asked(context)
            try:
                peak = measure_memory(
                    folder,
                    texts,
                    tokens=speed.tokens,
                    batch_sizes=speed.batch_sizes,
                    threads=threads,
                )
                found[name] = {
                    "peak_memory_mib": peak.peak_rss_mib,
                    "model_memory_mib": peak.model_mib,
                }
            except ResourceError as error:
                _stop_if_asked(context)  # a hole would be published for good
                context.progress.warn(f"no peak memory for {name}: {error}")
                found[name] = {"peak_memory_mib": None, "model_memory_mib": None}
            bar.advance(1, name)
    return found


def _stop_if_asked(context: StepContext) -> None:
    if context.should_stop():
        raise StoppedError(
            f"stopped while measuring in step {context.name!r}; what was published before is kept, "
            "and this step starts again from its beginning (attar resume)"
        )
