"""Mean, standard deviation, maximum and n of every metric over the runs of a sweep.

The result has the structure of a step's metrics with each number replaced by its statistics, so
`scores.int8.accuracy` has the same path as without a sweep. For a metric with an interval
({"value", "ci95", "n"}), the value is used; lists are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attar.artifacts import RESULT_FILE, read_result, write_json
from attar.numerics.statistics import spread
from attar.recipe.checking.references import table_of
from attar.recipe.outcome.sweep import Expanded
from attar.recipe.steps import run_of
from attar.report.reading import base_name, read_made
from attar.report.sections.seed_comparisons import seed_comparisons
from attar.report.sections.training import failed_of

SWEEP_FILE = "sweep.json"


def aggregated(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of several runs' metrics.

    Returns: nested tables whose leaves are {"mean", "sd", "max", "n"}; `sd` is that of a sample
        (n − 1) and None for one run.

    Example:
        >>> aggregated([{"loss": 1.0}, {"loss": 2.0}])
        {'loss': {'mean': 1.5, 'sd': 0.7071067811865476, 'max': 2.0, 'n': 2}}
    """
    # replace the names of copies inside metrics by the names in the recipe
    plain = [{base_name(name): value for name, value in run.items()} for run in runs]
    names = dict.fromkeys(name for run in plain for name in run)
    found: dict[str, Any] = {}
    for name in names:
        values = [run[name] for run in plain if name in run]
        tables = [table_of(value) for value in values if isinstance(value, Mapping)]
        numbers = [number for number in map(_number, values) if number is not None]
        if numbers and len(numbers) == len(values):
            found[name] = asdict(spread(numbers))
        elif tables and (inner := aggregated(tables)):
            found[name] = inner
    return found


def means(statistics_tree: Mapping[str, Any]) -> dict[str, Any]:
    """Only the means, in the structure of metrics, for gates."""
    return {
        name: inner["mean"] if set(inner) == {"mean", "sd", "max", "n"} else means(inner)
        for name, inner in statistics_tree.items()
    }


def write_sweep(expanded: Expanded, folder: Path) -> dict[str, Any]:
    """Write the statistics of every published step of the sweep, and the comparison of methods over
    seeds; returns the means."""
    if expanded.recipe.sweep is None:
        (folder / SWEEP_FILE).unlink(missing_ok=True)
        return {}
    statistics: dict[str, Any] = {}
    for origin, copies in expanded.multiplied.items():
        made = [name for name in copies if (folder / name / RESULT_FILE).is_file()]
        metrics = aggregated([read_result(folder / name).metrics for name in made])
        statistics[origin] = {"runs": made, "metrics": metrics}
        if run_of(expanded.recipe.steps[copies[0]]) == "train":
            runs = read_made({name: folder / name for name in made}, {})
            statistics[origin]["failed"] = list(failed_of(runs))
    evaluations = {
        name: read_result(folder / name).metrics
        for name, step in expanded.recipe.steps.items()
        if run_of(step) == "evaluate" and (folder / name / RESULT_FILE).is_file()
    }
    comparisons = [asdict(comparison) for comparison in seed_comparisons(evaluations)]
    write_json(folder / SWEEP_FILE, {"steps": statistics, "comparisons": comparisons})
    return {origin: means(found["metrics"]) for origin, found in statistics.items()}


def _number(value: Any) -> float | None:
    value = table_of(value).get("value", value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
