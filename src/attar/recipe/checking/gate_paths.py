"""Checks before a run whether a gate's dotted path can refer to a number.

    step . model . metric      for `evaluate` steps: every name is checked
    step . name . anything     for steps whose table row lists their metrics
    step . anything            for other steps, and for `data` and `machine` of an evaluation

A typo found here does not cost a whole run. Whether the data has the metric (f1 needs two labels)
is checked by the gate itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from attar.errors import did_you_mean
from attar.numerics.metric_names import AVERAGES, CALIBRATION, METRIC_NAMES
from attar.recipe.checking.mistakes import Mistake, NearName, listed, near_names
from attar.recipe.checking.references import table_of
from attar.recipe.steps import STEPS

MODEL_METRICS = (
    *METRIC_NAMES,
    *CALIBRATION,
    *("per_class", "confident", "exact_match"),
    *("tokens_per_s", "latency_ms", "size_mib", "num_params", "flops"),
    *("peak_memory_mib", "model_memory_mib", "agreement", "widths", "parts", "stages"),
)
"""Numbers that an evaluation gives for each model."""
OTHER_METRICS = ("data", "machine")
"""Other metrics of an evaluation that contain numbers."""


def gate_mistakes(gates: Any, steps: Mapping[str, Mapping[str, Any]]) -> list[Mistake]:
    """Every path of a gate, in `metric` or `of`, that cannot exist."""
    mistakes: list[Mistake] = []
    near_step = near_names(list(steps))
    for index, gate in enumerate(cast("Sequence[Any]", gates) if isinstance(gates, list) else []):
        for field in ("metric", "of"):
            path = table_of(gate).get(field)
            problem = _problem(path, steps, near_step) if isinstance(path, str) else None
            if problem:
                mistakes.append(Mistake(("gates", index, field), problem))
    return mistakes


def _problem(path: str, steps: Mapping[str, Mapping[str, Any]], near_step: NearName) -> str | None:
    step, dot, rest = path.partition(".")
    if step not in steps:
        hint = near_step(step) or f"; steps: {listed(steps)}"
        return f"{path!r} does not start with a step{hint}"
    if not dot:
        return f"{path!r} names no metric; write step.model.metric or step.metric"
    run, models = str(steps[step].get("run")), steps[step].get("models")
    if run != "evaluate":
        return _metric_problem(path, run, rest.partition(".")[0])
    if not isinstance(models, list):
        return None
    words = rest.removeprefix("models.").split(".")
    tasks = steps[step].get("tasks")
    named = [str(task) for task in cast("list[Any]", tasks)] if isinstance(tasks, list) else []
    known = (*AVERAGES, *named) if named else MODEL_METRICS
    listed_models = [str(m) for m in cast("list[Any]", models)]
    return _evaluation_problem(path, step, listed_models, words, known)


def _metric_problem(path: str, run: str, metric: str) -> str | None:
    kind = STEPS.get(run)
    known = [] if kind is None or kind.metrics is None else list(kind.metrics.__annotations__)
    if not known or metric in known:
        return None
    scores = "; an evaluate step measures it" if metric in MODEL_METRICS else ""
    return (
        f"{path!r}: a step that runs {run!r} has no metric {metric!r}{did_you_mean(metric, known)}"
        f"{scores}; it has {listed(known)}"
    )


def _evaluation_problem(
    path: str, step: str, models: Sequence[str], words: Sequence[str], known: Sequence[str]
) -> str | None:
    model, metric = words[0], words[1] if len(words) > 1 else None
    if model in OTHER_METRICS and model not in models:
        return None
    if model not in models:
        return (
            f"{path!r}: step {step!r} does not evaluate {model!r}{did_you_mean(model, models)}; "
            f"its models: {', '.join(models)}"
        )
    if metric is None:
        return f"{path!r} names no metric of {model!r}; write '{path}.{known[0]}'"
    if metric not in known:
        hint = did_you_mean(metric, known)
        return (
            f"{path!r}: {metric!r} is not a metric of a model{hint}; there are {', '.join(known)}"
        )
    return None
