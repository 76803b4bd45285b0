"""Students and the caches they learn from: both must read the same rows.

A cache step answers about the rows of its own data, cut and written as it says; a train step that
names it as teacher is told at once what it says otherwise, and not after the teacher was trained.
Which hidden states a loss needs depends on the depths of two models, so that is left to the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attar.recipe.checking.mistakes import Mistake
from attar.recipe.schema import Recipe
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep

SHARED = (
    "data",
    "objective",
    "template",
    "label_words",
    "max_length",
    "max_target_length",
    "augmentation",
)
NOT_KEPT = {"attention_mse": "attention scores", "relation_kl": "queries, keys and values"}
"""Kinds of losses that compare what no cache keeps."""


def check_lessons(recipe: Recipe) -> list[Mistake]:
    """Every train step whose teacher is a cache that it cannot learn from."""
    return [
        mistake
        for name, step in recipe.steps.items()
        if isinstance(step, TrainStep)
        for cache in [recipe.steps.get(step.teacher or "")]
        if isinstance(cache, CacheStep)
        for mistake in _mistakes(recipe, name, step, cache)
    ]


def _mistakes(recipe: Recipe, name: str, step: TrainStep, cache: CacheStep) -> Iterator[Mistake]:
    for setting in SHARED:
        own, other = getattr(step, setting), getattr(cache, setting)
        if own != other:
            yield Mistake(
                ("steps", name, setting),
                f"is {_said(own)}, the cache {step.teacher!r} has {_said(other)}; a student reads "
                "the rows its teacher was asked about, so give both the same",
            )
    for index, loss in enumerate(step.losses):
        if loss.kind in NOT_KEPT:
            yield Mistake(
                ("steps", name, "losses", index),
                f"{loss.kind} compares {NOT_KEPT[loss.kind]}, which a cache does not keep; name "
                f"teacher = {cache.teacher!r} to ask it live, or leave this loss out",
            )
    data = recipe.data.get(step.data)
    if data is None or data.train_rows is None or data.rows_seed is not None:
        return
    own_seeds, other_seeds = _seeds(recipe, name, step), _seeds(recipe, step.teacher or "", cache)
    if own_seeds != other_seeds:
        yield Mistake(
            ("steps", name, "teacher"),
            f"train_rows of data {step.data!r} are drawn with the seeds {_said(own_seeds)} here "
            f"and {_said(other_seeds)} in the cache {step.teacher!r}; set "
            f"data.{step.data}.rows_seed = {recipe.seed}, so that every seed reads the same rows",
        )


def _seeds(recipe: Recipe, name: str, step: TrainStep | CacheStep) -> tuple[int, ...]:
    swept = recipe.sweep
    if swept is not None and name in swept.steps and "seed" in swept.settings:
        return tuple(swept.settings["seed"])
    return (recipe.seed if step.seed is None else step.seed,)


def _said(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return "not set" if value is None else repr(value)
