"""`percentile`: clips a small fraction of the values.

The range of a site is given by a quantile of its histogram on each side: at 0.999, one value in a
thousand is clipped above and one below; 1 is the full range. The quantile is set in the recipe, or
the best of three is chosen by output error on the calibration texts or by the metric on the
labelled validation split.
Source: Outlier Suppression (Wei et al. 2022), appendix, "Percentile", which chooses on the
development set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attar.data.load import data_of
from attar.errors import ModelError
from attar.models.simulated.quantized import quantizing
from attar.quantization.calibration.calibrate import Calibration, Ranges
from attar.quantization.config import BATCH_SIZE, PercentileStep
from attar.quantization.method import ChosenRanges, Problem
from attar.scoring.judging import Judge
from attar.scoring.matching import labelled_split
from attar.step import StepContext
from attar.tasks.task import Task

SHARES = (0.999, 0.9999, 0.99999)
"""The paper's candidates."""


def ranges_at(share: float, calibration: Calibration) -> Ranges:
    """(quantile(1 − share), quantile(share)) of every site's histogram."""
    return {
        site: (seen.histogram.quantile(1 - share), seen.histogram.quantile(share))
        for site, seen in calibration.statistics.items()
    }


def percentile(problem: Problem) -> ChosenRanges:
    """The ranges at the given quantile, or at the best of three."""
    config = problem.config
    if config.percentile is not None:
        ranges = ranges_at(config.percentile, problem.calibration)
        return ChosenRanges(ranges, {"percentile": config.percentile})
    candidates = {share: ranges_at(share, problem.calibration) for share in SHARES}
    found = _scores(problem, candidates) if config.choose_by == "validation" else {}
    errors = {share: problem.output_error(ranges) for share, ranges in candidates.items()}
    # ties are broken by the smaller error
    best = min(SHARES, key=lambda share: (-found.get(share, 0.0), errors[share]))
    searched = [
        {"percentile": share, "output_error": errors[share]}
        | ({"validation": found[share]} if found else {})
        for share in SHARES
    ]
    return ChosenRanges(candidates[best], {"percentile": best, "candidates": searched})


def percentile_passes(config: PercentileStep) -> float:
    """One pass per quantile that is tried."""
    return len(SHARES) if config.percentile is None else 0


def validation_judge(
    config: PercentileStep, task: Task, folder: Path, context: StepContext
) -> Judge:
    """The judge of `choose_by = "validation"`: the validation split of the calibration data.

    Args:
        folder: folder of the model's tokenizer.
    Raises:
        DataError: no labelled validation rows, or an unknown metric.
        ModelError: the model has a language head, or its classes differ from the data's.
    """
    if task.has_language_head:
        raise ModelError(
            f'{context.name}: choose_by = "validation" is for models with a head for classes or a '
            f"number, this one {task.answers}; leave it out"
        )
    wanted = config.calibration
    data = data_of(context, wanted.data, is_said=True)
    split, batch_size = labelled_split(data, "validation"), wanted.batch_size or BATCH_SIZE
    return Judge.of_head(config.model, folder, task, split, data, context, batch_size)


def _scores(problem: Problem, candidates: Mapping[float, Ranges]) -> dict[float, float]:
    """The data's first metric for each quantile."""
    assert problem.task is not None, "a model without a task is refused when it is loaded"
    judge = validation_judge(problem.config, problem.task, problem.folder, problem.context)
    found = {}
    for share, ranges in candidates.items():
        with quantizing(problem.on_grid, problem.grids(ranges)):
            found[share] = judge.value(problem.on_grid, f"percentile {share:g}")
    return found
