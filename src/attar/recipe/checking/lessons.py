"""Checks that a step and the cache it learns from read the same rows, and that rows have labels.

A cache step stores outputs for the rows of its data, with its own tokenization settings. A train
step with this cache as teacher must have the same settings; differences are reported before the
teacher is trained. Which hidden states a loss needs depends on the depths of both models, so the
plan checks that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attar.distillation.config import AugmentStep
from attar.recipe.checking.mistakes import Mistake
from attar.recipe.checking.tasks_of_steps import has_chunks, kind_of_data
from attar.recipe.keys import step_seed
from attar.recipe.schema import Recipe
from attar.tasks.table import KINDS
from attar.training.cache_config import CacheStep, unkept
from attar.training.config import Retokenized, TrainStep

SHARED = (
    "data",
    "objective",
    "template",
    "label_words",
    "max_length",
    "max_target_length",
)


def check_lessons(recipe: Recipe) -> list[Mistake]:
    """Every step with a cache as teacher that does not match, or with rows that lack required
    labels."""
    return _of_objectives(recipe) + [
        mistake
        for name, step in recipe.steps.items()
        if isinstance(step, TrainStep | CacheStep)
        for check in (_of_distribution, _of_cache, _of_labels, _of_chunks)
        for mistake in check(recipe, name, step)
    ]


def _of_objectives(recipe: Recipe) -> list[Mistake]:
    """Steps whose data has a different objective than they need, if the data declares one."""
    return [
        Mistake(("steps", name, "data"), problem)
        for name, step in recipe.steps.items()
        if isinstance(step, TrainStep | AugmentStep)
        and (kind := kind_of_data(recipe, _data_of(step))) is not None
        and (problem := step.misfit(kind, _data_of(step)))
    ]


def _of_chunks(recipe: Recipe, name: str, step: TrainStep | CacheStep) -> Iterator[Mistake]:
    """Settings of corpora, where the data is a table of texts."""
    word = _data_of(step)
    kind = getattr(recipe.data.get(word), "kind", None)
    if not isinstance(step, TrainStep) or kind is None or has_chunks(recipe, word):
        return
    asked = KINDS[step.objective or kind.name]
    if step.order == "corpus" and not asked.hides:
        yield Mistake(
            ("steps", name, "order"),
            f'"corpus" is the order of a corpus\'s chunks, and data {word!r} has none; leave order '
            "out",
        )
    if isinstance(step.data, Retokenized):
        yield Mistake(
            ("steps", name, "data"),
            f"{word!r} is neither a corpus nor a selection, so its texts always use the model's "
            f"tokenizer; write data = {word!r}",
        )


def _of_labels(recipe: Recipe, name: str, step: TrainStep | CacheStep) -> Iterator[Mistake]:
    """Generated rows without labels, if there is no teacher or if label words are generated."""
    data = _data_of(step)
    made = recipe.steps.get(data)
    writes = step.objective is not None and KINDS[step.objective].writes
    needs_labels = step.teacher is None or writes
    if needs_labels and isinstance(made, AugmentStep) and not made.keep_labels:
        yield Mistake(
            ("steps", name, "data"),
            f"the rows that {data!r} makes have no labels, but this step needs one for every row; "
            f"set steps.{data}.keep_labels = true, or use a teacher with a classification head",
        )


def _of_distribution(recipe: Recipe, name: str, step: TrainStep | CacheStep) -> Iterator[Mistake]:
    """Sparse distributions over a vocabulary, where outputs have none."""
    kind = kind_of_data(recipe, _data_of(step))
    asked = KINDS[step.objective] if step.objective else kind
    if not isinstance(step, CacheStep) or asked is None:
        return
    if step.objective is None and (problem := unkept(asked, logits=step.logits)):
        yield Mistake(("steps", name, "data"), problem)
    if problem := step.misfit(predicts_words=asked.predicts_words):
        yield Mistake(("steps", name, "distribution"), problem)


def _of_cache(recipe: Recipe, name: str, step: TrainStep | CacheStep) -> Iterator[Mistake]:
    if not isinstance(step, TrainStep):
        return
    cache = recipe.steps.get(step.teacher or "")
    if not isinstance(cache, CacheStep):
        return
    is_by_chunk = all(has_chunks(recipe, _data_of(each)) for each in (step, cache))
    if is_by_chunk and isinstance(step.data, Retokenized):
        yield Mistake(
            ("steps", name, "data"),
            f"retokenize makes other chunks than those that the cache {step.teacher!r} has answers "
            f"about; read them as they are (data = {step.data_name!r}), or name teacher = "
            f"{cache.teacher!r} to ask it live",
        )
    for setting in SHARED[
        is_by_chunk:
    ]:  # chunks can also be found in the cache of another selection
        own, other = getattr(step, setting), getattr(cache, setting)
        if own != other:
            yield Mistake(
                ("steps", name, setting),
                f"is {_said(own)}, the cache {step.teacher!r} has {_said(other)}; student and "
                "cache must read the same rows, so set both to the same value",
            )
    kind = kind_of_data(recipe, cache.data)
    sparse = cache.sparse(is_running=kind is not None and kind.is_running)
    for index, loss in enumerate(step.losses):
        if sparse is not None and loss.needs_all_of_p:
            problem = loss.needs_more_than(sparse.said(), repr(step.teacher))
            yield Mistake(("steps", name, "losses", index), problem)
        if loss.not_cached:
            yield Mistake(
                ("steps", name, "losses", index),
                f"{loss.kind} compares {loss.not_cached}, which a cache does not keep; name "
                f"teacher = {cache.teacher!r} to ask it live, or leave this loss out",
            )
    yield from _other_rows(recipe, name, step)


def _other_rows(recipe: Recipe, name: str, step: TrainStep) -> Iterator[Mistake]:
    """Whether a cache samples its `train_rows` with other seeds than the step that reads it."""
    other = str(step.teacher)
    word = step.data_name
    data = recipe.data.get(word)
    if data is None or data.train_rows is None or data.rows_seed is not None:
        return
    (own_name, own_seeds), (other_name, other_seeds) = _seeds(recipe, name), _seeds(recipe, other)
    # two swept seeds give all combinations, including unequal ones
    are_crossed = own_name != other_name and len(own_seeds) > 1
    if own_seeds != other_seeds or are_crossed:
        yield Mistake(
            ("steps", name, "teacher"),
            f"train_rows of data {word!r} are drawn with the seeds {_said(own_seeds)} here "
            f"and {_said(other_seeds)} in the cache {other!r}, which may be other rows; set "
            f"data.{word}.rows_seed = {recipe.seed}, so that every seed reads the same rows",
        )


def _seeds(recipe: Recipe, name: str) -> tuple[str, tuple[int, ...]]:
    """The sweep setting that determines a step's seeds ("" if none), and the seeds."""
    swept = recipe.sweep
    for setting in (f"{name}.seed", "seed"):
        if swept is not None and name in swept.steps and setting in swept.settings:
            return setting, tuple(swept.settings[setting])
    return "", (step_seed(recipe.steps[name], recipe.seed),)


def _data_of(step: TrainStep | CacheStep | AugmentStep) -> str:
    return step.data_name if isinstance(step, TrainStep) else step.data


def _said(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return "not set" if value is None else repr(value)
