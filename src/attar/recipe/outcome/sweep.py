"""Expands a sweep: one copy of each step per value, and of all steps that depend on it.

    [sweep] steps = ["student"], seed = [0, 1]
    teacher ─► student ─► int8        becomes        teacher ─┬► student@seed=0 ─► int8@seed=0
                                                              └► student@seed=1 ─► int8@seed=1

Several settings give all combinations. A step is copied only for settings of its own and of the
steps that it reads, so nothing is computed twice. `seed` or `calibration.examples` applies to all
listed steps; `int8.weight_bits` only to the step int8. Reports are not copied, and references to
models cannot be swept, so the dependencies between steps stay as written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from pydantic import ValidationError

from attar.artifacts import key_of
from attar.config import Config
from attar.errors import did_you_mean
from attar.recipe.checking.mistakes import Mistake, explain
from attar.recipe.checking.references import with_value, with_words
from attar.recipe.graph import in_order, inputs_of
from attar.recipe.schema import Recipe, StepConfig, Sweep
from attar.recipe.steps import STEPS, StepKind, kind_of, makes_rows, run_of, steps_read
from attar.report.reading import VARIANT_MARK

MAX_LABEL, MAX_VALUE_LABEL = 100, 40
"""Maximum length of a copy's label, and of a value in it. Longer ones are shortened and get a hash,
because they are names of folders."""
UNCUT = frozenset({"seed", "data"})
"""Settings whose part of a label is never shortened."""
MAX_COPIES = 1000
"""Maximum number of combinations of a sweep; more are probably a mistake."""
NOT_IN_FOLDER_NAMES = re.compile(r"[^A-Za-z0-9_.+=,-]+")

Choice = tuple[tuple[str, Any], ...]
"""(setting, value) pairs of one combination."""


@dataclass(frozen=True)
class Expanded:
    """A recipe with its sweep expanded, and the origin of each step."""

    recipe: Recipe
    """The recipe with all copies among its steps."""
    origins: Mapping[str, str]
    """Step → the step of the original recipe that it is a copy of, or itself."""

    @property
    def multiplied(self) -> dict[str, list[str]]:
        """Step of the original recipe → its copies, for steps that were copied."""
        copies: dict[str, list[str]] = {}
        for name, origin in self.origins.items():
            if name != origin:
                copies.setdefault(origin, []).append(name)
        return copies


def expand(recipe: Recipe, kinds: Mapping[str, StepKind] = STEPS) -> Expanded:
    """Expand the sweep; without a sweep, the recipe is unchanged.

    Raises:
        ValidationError: a value is invalid for its setting; `check_sweep` finds this earlier.
    """
    if recipe.sweep is None:
        return Expanded(recipe, {name: name for name in recipe.steps})
    sweep = recipe.sweep
    reach = _reach(recipe, sweep, kinds)
    steps: dict[str, Config] = {}
    origins: dict[str, str] = {}
    for name, step in recipe.steps.items():
        for choice in _choices(sweep, reach[name]):
            copy = name + _label(sweep, choice)
            words = {
                r.place: r.word + _label(sweep, tuple(c for c in choice if c[0] in reach[r.word]))
                for r in steps_read(step, recipe.steps, kinds)
            }
            table = with_words(_written(step), words)
            for setting, value in choice:
                if name in _targets(sweep, setting):
                    table = with_value(table, _inside(sweep, setting).split("."), value)
            steps[copy] = _validated(table) if choice else step
            origins[copy] = name
    return Expanded(recipe.model_copy(update={"steps": steps}), origins)


def check_sweep(recipe: Recipe) -> list[Mistake]:
    """Steps and settings of the sweep that do not exist, and invalid values."""
    if recipe.sweep is None:
        return []
    mistakes = [
        Mistake(("sweep", "steps"), problem)
        for name in recipe.sweep.steps
        if (problem := _step_problem(recipe, name))
    ]
    copies = math.prod(len(values) for values in recipe.sweep.settings.values())
    if copies > MAX_COPIES:
        problem = f"{copies:,} combinations; at most {MAX_COPIES:,} copies of a step are made"
        mistakes.append(Mistake(("sweep",), problem))
    if mistakes:
        return mistakes
    for setting, values in recipe.sweep.settings.items():
        place = ("sweep", *setting.split("."))
        if not values:
            mistakes.append(Mistake(place, "an empty list leaves nothing to run"))
        if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            mistakes.append(Mistake(place, "a value is listed twice"))
        for target in _targets(recipe.sweep, setting):
            problems = (_misfit(recipe, target, setting, value) for value in values)
            mistakes += [
                Mistake(place, f"step {target!r}: {problem}") for problem in problems if problem
            ]
    return list(dict.fromkeys(mistakes))


def _step_problem(recipe: Recipe, name: str) -> str | None:
    if name not in recipe.steps:
        return f"no step {name!r}{did_you_mean(name, list(recipe.steps))}"
    if kind_of(recipe.steps[name]).reads_everything:
        return f"step {name!r} is a report, which already shows every copy"
    return None


def _misfit(recipe: Recipe, name: str, setting: str, value: Any) -> str | None:
    """Why a value is invalid for a setting of a step."""
    assert recipe.sweep is not None
    step = recipe.steps[name]
    inside = _inside(recipe.sweep, setting)
    if inside == "run":
        return "`run` cannot vary"
    try:
        changed = _validated(with_value(_written(step), inside.split("."), value))
    except (IndexError, ValueError) as error:
        if not isinstance(error, ValidationError):
            return f"no setting {inside!r}"
        found = explain(error, _holder())[0]
        inside = ".".join(map(str, found.place[1:]))
        return f"{inside}: {found.text}".removeprefix(": ")
    kind, steps = kind_of(step), recipe.steps
    is_other_model = kind.models_in(changed) != kind.models_in(step)
    if is_other_model or steps_read(changed, steps) != steps_read(step, steps):
        what = "a model" if is_other_model else "a step"
        return f"{inside!r} names {what}, and references between steps cannot vary"
    known = [*recipe.data, *(name for name in steps if makes_rows(name, steps))]
    unknown = [r.word for r in kind.data_in(changed) if r.word not in known]
    return f"no [data.{unknown[0]}]{did_you_mean(unknown[0], known)}" if unknown else None


def _written(step: Config) -> dict[str, Any]:
    """The explicitly set part of a step's table, because defaults can differ between methods."""
    table = step.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {**table, "run": run_of(step)}


@cache
def _holder() -> type[Config]:
    """A pydantic model with one field, the union of steps, for `explain`. Created only if a recipe
    has a sweep, because that takes as long as all other checks."""

    class Holder(Config):
        step: StepConfig

    return Holder


def _validated(table: Mapping[str, Any]) -> Config:
    holder: Any = _holder().model_validate_json(json.dumps({"step": table}), strict=True)
    return holder.step


def _targets(sweep: Sweep, setting: str) -> tuple[str, ...]:
    """The steps that a setting applies to."""
    first, dot, _ = setting.partition(".")
    return (first,) if dot and first in sweep.steps else sweep.steps


def _inside(sweep: Sweep, setting: str) -> str:
    """The place of a setting within a step."""
    first, dot, rest = setting.partition(".")
    return rest if dot and first in sweep.steps else setting


def _reach(recipe: Recipe, sweep: Sweep, kinds: Mapping[str, StepKind]) -> dict[str, list[str]]:
    """Step → the swept settings that affect it directly or through its inputs, in their order."""
    inputs = inputs_of(recipe.steps, kinds)
    found: dict[str, set[str]] = {}
    for name in in_order(inputs):
        own = {setting for setting in sweep.settings if name in _targets(sweep, setting)}
        found[name] = own.union(*(found[i] for i in inputs[name]))
        if kind_of(recipe.steps[name], kinds).reads_everything:
            found[name] = set()
    return {name: [s for s in sweep.settings if s in found[name]] for name in recipe.steps}


def _choices(sweep: Sweep, settings: Iterable[str]) -> list[Choice]:
    names = list(settings)
    values = (sweep.settings[name] for name in names)
    return [tuple(zip(names, combination, strict=True)) for combination in product(*values)]


def _label(sweep: Sweep, choice: Choice) -> str:
    """Suffix of a copy's name: "@seed=0,weight_bits=4". If it is too long, everything but the seed
    and the data is shortened and gets a hash that does not depend on these, so that copies of one
    method can be matched."""
    if not choice:
        return ""
    words = {pair[0]: _word(sweep, *pair) for pair in choice}
    others = [pair for pair in choice if pair[0].rpartition(".")[2] not in UNCUT]
    said = ",".join(words[setting] for setting, _ in others)
    if len(said) <= MAX_LABEL:
        return VARIANT_MARK + ",".join(words.values())
    cut = f"{said[:MAX_LABEL]}-{key_of(others)[:6]}"
    return VARIANT_MARK + ",".join(
        [cut, *(words[pair[0]] for pair in choice if pair not in others)]
    )


def _word(sweep: Sweep, setting: str, value: Any) -> str:
    inside = _inside(sweep, setting)
    is_unique = [_inside(sweep, other) for other in sweep.settings].count(inside) == 1
    return f"{inside if is_unique else setting}={_value_label(value)}"


def _value_label(value: Any) -> str:
    """A value as part of a folder's name. Values that are not valid there are shortened and get
    their own hash, so that copies that differ only in the seed have labels that do, too."""
    exact = value if isinstance(value, str) else json.dumps(value)
    safe = NOT_IN_FOLDER_NAMES.sub("-", exact)
    if safe == exact and len(safe) <= MAX_VALUE_LABEL:
        return safe
    return f"{safe[:MAX_VALUE_LABEL]}-{key_of(value)[:6]}"
