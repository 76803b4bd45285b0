"""A step's key: with the same key, running the step again would give the same artifact.

    key = hash(run, version of the step's code, settings, seed, contents of inputs and of data)

Keys depend on contents, not on names: the name of a step is replaced by its key, a folder or hub id
by the fingerprint of its files, and the location of data by the contents of its files. There are
two exceptions: the key of a step whose artifact contains names (a table of models) includes them,
and the key of a report includes the whole recipe. Left out: library versions and the machine, which
are recorded in `result.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from attar.artifacts import key_of, published_fingerprint, sha256_of
from attar.config import Config, in_recipe_folder
from attar.recipe.checking.references import (
    ModelPlace,
    Reference,
    table_of,
    with_words,
)
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS, StepKind, as_table, kind_of, makes_rows, run_of

DATA_PLACES = frozenset({"path", "corpus"})
"""Settings of a data table with the location of its files; the contents are in the fingerprint."""


def _published_fingerprint(
    word: str, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> str:
    return published_fingerprint(in_recipe_folder(word, recipe_folder), sha256)


@dataclass(frozen=True)
class Fingerprints:
    """Functions that compute fingerprints of data, models and files outside the recipe."""

    model: Callable[[str, Path], str]
    tokenizer: Callable[[str, Path], str]
    data: Callable[[Any, Path], str]
    published: Callable[[str, Path], str] = _published_fingerprint
    """Fingerprint of a step's artifact in another run."""
    sha256: Callable[[Path], str] = sha256_of
    """Hash of a file in a step's settings."""

    def of(self, place: ModelPlace) -> Callable[[str, Path], str]:
        """The fingerprint function for a place."""
        if place.steps_only:
            return self.published
        return self.tokenizer if place.tokenizer_only else self.model


def room_fingerprints(sha256: Callable[[Path], str] = sha256_of) -> Fingerprints:
    """The fingerprint functions of `data` and `models`, which do not import torch."""
    from attar.data.fingerprint import data_fingerprint
    from attar.models.sources.references import model_fingerprint, tokenizer_fingerprint

    return Fingerprints(
        model=partial(model_fingerprint, sha256=sha256),
        tokenizer=partial(tokenizer_fingerprint, sha256=sha256),
        data=partial(data_fingerprint, sha256=sha256),
        published=partial(_published_fingerprint, sha256=sha256),
        sha256=sha256,
    )


def step_seed(step: Config, recipe_seed: int) -> int:
    """The step's own seed, or the recipe's if it has none."""
    own: int | None = getattr(step, "seed", None)
    return recipe_seed if own is None else own


@dataclass(frozen=True)
class Keyed:
    """A step's key, and the content that it is a hash of."""

    key: str
    made_from: Mapping[str, Any]
    """The hashed content; for a report without the recipe, which is also part of its key."""


def keys_of(
    recipe: Recipe,
    order: Sequence[str],
    recipe_folder: Path,
    *,
    kinds: Mapping[str, StepKind] = STEPS,
    fingerprints: Fingerprints | None = None,
) -> dict[str, Keyed]:
    """Step → its key and the hashed content. In `order`, each step comes after those it reads.

    Raises:
        AttarError: data or a model outside the recipe does not exist or cannot be read.
    """
    prints = fingerprints or room_fingerprints()
    outside: dict[tuple[str, bool], str] = {}
    data: dict[str, Any] = {}
    keys: dict[str, str] = {}
    found: dict[str, Keyed] = {}
    for name in order:
        step = recipe.steps[name]
        kind = kind_of(step, kinds)
        models, names_of_data = kind.models_in(step), kind.data_in(step)
        for reference in models:
            if reference.word not in keys and reference.read not in outside:
                fingerprint = prints.of(reference.wanted)
                outside[reference.read] = fingerprint(reference.word, recipe_folder)
        made = [r for r in names_of_data if makes_rows(r.word, recipe.steps, kinds)]
        for reference in names_of_data:
            if reference not in made and reference.word not in data:
                data[reference.word] = _data_content(recipe, reference.word, recipe_folder, prints)
        content: dict[str, Any] = {
            "run": run_of(step),
            "version": kind.version,
            "settings": _settings(step, () if kind.names_matter else (*models, *made)),
            "seed": step_seed(step, recipe.seed),
            "models": {r.place: keys.get(r.word) or outside[r.read] for r in models},
            "data": {r.place: keys[r.word] if r in made else data[r.word] for r in names_of_data},
        }
        files = kind.files_in(step, recipe_folder, prints.sha256)
        if files is not None:  # the key depends on contents, not on paths
            place = {"settings": {**content["settings"], "path": None}}
            content |= {**place, "files": files}
        everything = {}
        if kind.reads_everything:
            whole = recipe.model_dump(mode="json", by_alias=True, exclude={"run"})
            everything = {"everything": [whole, dict(keys)]}
        keys[name] = key_of(content | everything)
        found[name] = Keyed(keys[name], content)
    return found


def _data_content(recipe: Recipe, name: str, recipe_folder: Path, prints: Fingerprints) -> Any:
    config = recipe.data[name]
    return [_without_places(as_table(config)), prints.data(config, recipe_folder)]


def _without_places(table: Mapping[str, Any]) -> dict[str, Any]:
    """A data table without the locations of files, also in its table of validation texts."""
    return {
        name: _without_places(table_of(value)) if isinstance(value, dict) else value
        for name, value in table.items()
        if name not in DATA_PLACES
    }


def _settings(step: Config, anonymous: Sequence[Reference]) -> dict[str, Any]:
    """The settings as plain data, without the names at some places and without the seed, whose
    resolved value is in the key."""
    words = {reference.place: None for reference in anonymous}
    settings = with_words(as_table(step), words)
    settings.pop("seed", None)
    return settings
