"""A step's key: the same key means that running it again would make the same artifact.

    key = hash(run, version of the step's code, settings, seed, contents of inputs, contents of
    data)

Names do not count, contents do: a word that names a step is replaced by that step's key, a folder
or hub id by the fingerprint of its files, a data table by its settings and the fingerprint of its
files, never by a path. Two exceptions: a step whose artifact repeats names (a table of models) has
them in its key, and a report, which shows everything, has the whole recipe. Left out: versions of
libraries and the machine, which `result.json` records instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.artifacts import key_of
from attar.config import Config
from attar.recipe.references import ModelWord
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS, StepKind, kind_of

DATA_PATHS = frozenset({"path"})
"""Settings of a data table that say where the files are; their contents are in the fingerprint."""


@dataclass(frozen=True)
class Fingerprints:
    """How to fingerprint what lies outside the recipe. Torch-free functions of the rooms that
    know."""

    model: Callable[[str, Path], str]
    data: Callable[[Any, Path], str]


def room_fingerprints() -> Fingerprints:
    from attar.data.fingerprint import data_fingerprint
    from attar.models.references import model_fingerprint

    return Fingerprints(model=model_fingerprint, data=data_fingerprint)


def step_seed(step: Config, recipe_seed: int) -> int:
    """The step's own seed, else the recipe's."""
    own = getattr(step, "seed", None)
    return recipe_seed if own is None else int(own)


def keys_of(
    recipe: Recipe,
    order: Sequence[str],
    recipe_folder: Path,
    *,
    kinds: Mapping[str, StepKind] = STEPS,
    fingerprints: Fingerprints | None = None,
) -> dict[str, str]:
    """Step → key, for all steps; `order` has every step after those it reads.

    Raises:
        AttarError: data or a model outside the recipe does not exist or cannot be read.
    """
    prints = fingerprints or room_fingerprints()
    data: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for name in order:
        step = recipe.steps[name]
        kind = kind_of(step, kinds)
        references = kind.references(step)
        models = {
            word.place: keys.get(word.word) or prints.model(word.word, recipe_folder)
            for word in references.models
        }
        for reference in references.data:
            if reference.name not in data:
                config = recipe.data[reference.name]
                settings = config.model_dump(mode="json", exclude=set(DATA_PATHS))
                data[reference.name] = [settings, prints.data(config, recipe_folder)]
        content: dict[str, Any] = {
            "run": getattr(step, "run"),  # noqa: B009
            "version": kind.version,
            "settings": _settings(step, () if kind.names_matter else references.models),
            "seed": step_seed(step, recipe.seed),
            "models": models,
            "data": {r.place: data[r.name] for r in references.data},
        }
        if kind.reads_everything:
            content["everything"] = [recipe.model_dump(mode="json", by_alias=True), dict(keys)]
        keys[name] = key_of(content)
    return keys


def _settings(step: Config, anonymous: Sequence[ModelWord]) -> dict[str, Any]:
    """The settings as plain data, with the words at the given places left out."""
    settings = step.model_dump(mode="json", by_alias=True, exclude={"seed"})
    for word in anonymous:
        *path, last = word.place.split(".")
        here: Any = settings
        for part in path:
            here = here[int(part) if part.isdigit() else part]
        if isinstance(here[last], dict):
            here[last] = {**here[last], "from": None}
        else:
            here[last] = None
    return settings
