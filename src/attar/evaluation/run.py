"""The step `evaluate`: quality, latency and memory of models on the same rows and machine.

Models of every form (float, simulated, deployed) are opened and scored in the same way
(`attar.scoring`). To fail early, the order is: check data and metric names, check the class names
of every model, predict, compute metrics with paired intervals, measure latency, measure memory.
For models that generate text or score running text, throughput (`tokens_per_s`) is measured instead
of latency; for all generative models, prefill and decoding are also timed separately.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.data.load import data_of
from attar.data.tables import Split, TextData
from attar.errors import ResourceError
from attar.evaluation.compare import differences
from attar.evaluation.compared import Compared, Judged, Metrics
from attar.evaluation.config import EvaluateStep, Speed
from attar.evaluation.generated import judge_generated
from attar.evaluation.hidden import judge_hidden
from attar.evaluation.inputs import exact_batch, fixed_tokens, longest_texts, timed_tokens
from attar.evaluation.machine import describe_machine, usable_cores
from attar.evaluation.memory import measure_memory
from attar.evaluation.parts_of_texts import judge_quotes, judge_tags
from attar.evaluation.passages import judge_running_text
from attar.evaluation.predictions import MACRO, judge_rankings, judge_rows
from attar.evaluation.speed import first_float, measure_latency
from attar.evaluation.stages import time_stages
from attar.evaluation.vectors import judge_vectors
from attar.evaluation.written import judge_written
from attar.evaluation.zero_shot.run import evaluate_zero_shot
from attar.models.foreign import task_of
from attar.models.sources.references import resolve_model
from attar.numerics.metrics import constant_score
from attar.numerics.statistics import bootstrap_interval
from attar.scoring.matching import known_metrics, labelled_split, output_columns
from attar.step import StepContext
from attar.tasks.table import Answer
from attar.tasks.task import Task

if TYPE_CHECKING:
    from attar.scoring.forms import Form

JUDGES: Mapping[Answer, Callable[[Compared], Judged]] = {
    "row": judge_rows,
    "rank": judge_rankings,
    "tags": judge_tags,
    "quote": judge_quotes,
    "next": judge_running_text,
    "spans": judge_hidden,
    "masked": judge_hidden,
    "text": judge_written,
    "vector": judge_vectors,
}
"""Type of answer → function that runs all models and computes the data's metrics. All of them raise
NonFiniteError if a model's output is NaN or infinite."""
SIZES_WITHOUT_TIMING = Speed()
"""Default batch sizes for measuring memory if timing is off."""


def evaluate(config: EvaluateStep, context: StepContext) -> dict[str, Any]:
    """Evaluate the models. The metrics are documented in the contract.

    Raises:
        DataError: the split is missing, empty or unlabelled.
        ModelError: the classes or the objective of a model do not match the data.
        NonFiniteError: a model gives NaN or infinite logits.
    """
    if config.data is None:
        return evaluate_zero_shot(config, context)
    from attar.scoring.forms import open_form

    folders = {
        name: resolve_model(name, context.inputs, context.recipe_folder) for name in config.models
    }
    first = task_of(folders[config.models[0]])
    data = _as_learned(data_of(context, config.data), first)
    split = labelled_split(data, config.split)
    known_metrics(data)
    columns = {
        name: output_columns(name, task_of(folder), data, context.progress.warn)
        for name, folder in folders.items()
    }

    speed = config.speed or SIZES_WITHOUT_TIMING
    threads, tokens = speed.threads or usable_cores(), fixed_tokens(config)
    machine = describe_machine(threads)
    forms = {name: open_form(folder, threads) for name, folder in folders.items()}
    compared = Compared(config, context, forms, columns, data, split)
    is_written = config.answers == "generated" and data.kind.answer == "row"
    metrics, figures = (judge_generated if is_written else JUDGES[data.kind.answer])(compared)
    models = {
        name: _facts(form, tokens) | _intervals(name, metrics) | figures.get(name, {})
        for name, form in forms.items()
    }
    if config.speed is not None and data.kind.graph == "one_pass":
        read = next(iter(forms.values())).encode(_read_together(forms, split))
        lengths = timed_tokens(config, read.lengths)
        for name, entries in _time(compared, config.speed, lengths, threads).items():
            models[name] |= {"latency_ms": entries[0], "latency": entries}
    if config.speed is not None:
        for name, stages in time_stages(compared, config.speed, tokens, threads).items():
            models[name] |= {"stages": stages}
    if config.memory:
        for name, entry in _weigh(compared, speed, tokens, folders, threads).items():
            models[name] |= entry
    return {
        "data": _describe(data, config.split, split),
        "models": models,
        "differences": differences(config.models, _compared(metrics, data)),
        "machine": machine,
        "flops_tokens": tokens,
    }


def _as_learned(data: TextData, task: Task) -> TextData:
    """Running text with the first model's training objective: next tokens, or masked spans."""
    if not (data.kind.is_running and task.kind.is_running) or data.objective == task.objective:
        return data
    return replace(data, objective=task.objective, metrics=task.kind.metrics)


def _compared(metrics: Metrics, data: TextData) -> Metrics:
    """Metrics to compare models by. macro_f1, which is always computed, is included only if it is a
    metric of the data."""
    return {name: found for name, found in metrics.items() if name in data.metrics or name != MACRO}


def _intervals(model: str, metrics: Metrics) -> dict[str, Any]:
    """The metrics of one model with their intervals."""
    return {metric: bootstrap_interval(values[model]).entry for metric, values in metrics.items()}


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


def _facts(form: Form, tokens: int) -> dict[str, Any]:
    """Properties of a model that need no run, with the FLOPs of a text of `tokens` tokens."""
    return {
        "form": form.form,
        "size_mib": form.size_mib,
        "num_params": form.num_params,
        "flops": form.flops(1, tokens),
        "parts": form.parts(tokens),
    }


def _time(
    compared: Compared, speed: Speed, lengths: Sequence[int], threads: int
) -> dict[str, list[dict[str, Any]]]:
    """Model → latency at each length and batch size, measured in turns."""
    forms, split = compared.forms, compared.split

    def calls_for(batch_size: int, tokens: int) -> dict[str, Any]:
        texts = longest_texts(_read_together(forms, split), batch_size)
        batches = {
            name: exact_batch(form.folder, form.task, texts, tokens) for name, form in forms.items()
        }
        return {name: partial(form.logits, batches[name]) for name, form in forms.items()}

    against = first_float([(name, form.form) for name, form in forms.items()])
    counted = partial(compared.progress, "speed", counts_work=True)
    return measure_latency(speed, lengths, threads, against, calls_for, counted)


def _read_together(forms: Mapping[str, Form], split: Split) -> Sequence[tuple[str, ...]]:
    """Texts as the rows of one forward pass, the same for all models."""
    embeds = next(iter(forms.values())).task.kind.embeds
    return [(text,) for row in split.texts for text in row] if embeds else split.texts


def _weigh(
    compared: Compared, speed: Speed, tokens: int, folders: Mapping[str, Path], threads: int
) -> dict[str, dict[str, Any]]:
    """Model → peak memory. A failed measurement gives a warning and is left out."""
    context, together = compared.context, _read_together(compared.forms, compared.split)
    texts = longest_texts(together, max(speed.batch_sizes))
    sizes: dict[str, Any] = {"tokens": tokens, "batch_sizes": speed.batch_sizes}
    found: dict[str, dict[str, Any]] = {}
    with context.progress.task(f"{context.name}: memory", len(folders)) as bar:
        for name, folder in folders.items():
            context.stop_if_asked("measuring models")
            try:
                peak = measure_memory(folder, texts, threads=threads, **sizes)
                mib = peak.peak_rss_mib, peak.model_mib
            except ResourceError as error:
                context.stop_if_asked("measuring models")  # do not publish gaps
                context.progress.warn(f"no peak memory for {name}: {error}")
                mib = None, None
            found[name] = {"peak_memory_mib": mib[0], "model_memory_mib": mib[1]}
            bar.advance(1, name)
    return found
