"""Checks that train steps have enough evaluations for fitting a power law.

Their number follows from the settings, so this is known before a run of hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from attar.evaluation.config import LEAST_POINTS, ExtrapolateStep
from attar.numerics.metric_names import LANGUAGE
from attar.recipe.checking.mistakes import Mistake
from attar.recipe.checking.tasks_of_steps import kind_of_model
from attar.recipe.schema import Recipe
from attar.training.config import TrainStep


def check_extrapolations(recipe: Recipe) -> list[Mistake]:
    """Every train step whose validation losses cannot be extrapolated."""
    return [
        mistake
        for name, step in recipe.steps.items()
        if isinstance(step, ExtrapolateStep)
        for mistake in _of_models(recipe, name, step)
    ]


def _of_models(recipe: Recipe, name: str, step: ExtrapolateStep) -> Iterator[Mistake]:
    for place, word in _words(step):
        train = recipe.steps.get(word)
        problem = _problem(recipe, word, train, step) if isinstance(train, TrainStep) else None
        if problem:
            yield Mistake(("steps", name, "models", *place), problem)


def _words(step: ExtrapolateStep) -> Iterator[tuple[tuple[int, ...], str]]:
    for index, each in enumerate(step.models):
        if isinstance(each, str):
            yield (index,), each
        else:
            yield from (((index, inner), word) for inner, word in enumerate(each))


def _problem(recipe: Recipe, word: str, train: TrainStep, step: ExtrapolateStep) -> str | None:
    """Why the history of a train step is not sufficient; None if it is."""
    kind = kind_of_model(recipe, word)
    if kind is not None and LANGUAGE[0] not in kind.metrics:
        return (
            f"step {word!r} is trained for {kind.name}; only the nll of causal language models is "
            "extrapolated"
        )
    share = step.fit.from_share
    # evaluations after 1/n, 2/n … of the run; one exactly at the share may be counted before it
    left = train.evaluations - math.floor(share * train.evaluations)
    left += len(train.evaluate_at_tokens)
    if left >= LEAST_POINTS:
        return None
    enough = math.ceil(LEAST_POINTS / (1 - share))
    return (
        f"step {word!r} has {left} evaluations from {share:.0%} of its tokens on, and a power law "
        f"needs {LEAST_POINTS}; set steps.{word}.evaluations = {max(enough, 2 * LEAST_POINTS)} or "
        "more"
    )
