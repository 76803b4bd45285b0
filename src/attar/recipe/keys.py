"""A step's key: the same key means that running it again would make the same artifact.

    key = hash(run, version of the step's code, settings, seed, contents of inputs and of data)

Names do not count, contents do: a word that names a step is replaced by that step's key, a folder
or hub id by the fingerprint of its files, and where data lies is left out in favour of what its
files hold. Two exceptions: a step whose artifact repeats names (a table of models) has them in its
key, and a report, which shows everything, has the whole recipe. Left out: versions of libraries
and the machine, which `result.json` records instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from attar.artifacts import key_of, published_fingerprint, sha256_of
from attar.config import Config
from attar.recipe.checking.references import (
    ModelPlace,
    Reference,
    published_folder,
    table_of,
    with_words,
)
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS, StepKind, as_table, kind_of, makes_rows, run_of

DATA_PLACES = frozenset({"path", "corpus"})
"""Settings of a data table that say where its files are; what they hold is in the fingerprint."""


def _published_fingerprint(
    word: str, recipe_folder: Path, sha256: Callable[[Path], str] = sha256_of
) -> str:
    return published_fingerprint(published_folder(word, recipe_folder), sha256)


@dataclass(frozen=True)
class Fingerprints:
    """How to fingerprint what lies outside the recipe: functions of the rooms that know."""

    model: Callable[[str, Path], str]
    tokenizer: Callable[[str, Path], str]
    data: Callable[[Any, Path], str]
    published: Callable[[str, Path], str] = _published_fingerprint
    """Of what a step of another run made."""
    sha256: Callable[[Path], str] = sha256_of
    """Of a file that a step's settings name."""

    def of(self, place: ModelPlace) -> Callable[[str, Path], str]:
        """The one for what a place holds."""
        if place.steps_only:
            return self.published
        return self.tokenizer if place.tokenizer_only else self.model


def room_fingerprints(sha256: Callable[[Path], str] = sha256_of) -> Fingerprints:
    """The functions of `data` and `models`; neither loads torch."""
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
    """The step's own seed, else the recipe's."""
    own: int | None = getattr(step, "seed", None)
    return recipe_seed if own is None else own


@dataclass(frozen=True)
class Keyed:
    """A step's key, and what it is a hash of."""

    key: str
    made_from: Mapping[str, Any]
    """Without the whole recipe that the key of a report has in it too."""


def keys_of(
    recipe: Recipe,
    order: Sequence[str],
    recipe_folder: Path,
    *,
    kinds: Mapping[str, StepKind] = STEPS,
    fingerprints: Fingerprints | None = None,
) -> dict[str, Keyed]:
    """Step → key and what it was made from; `order` has every step after those it reads.

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
        if files is not None:  # what they hold counts, and not where they are
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
    settings = config.model_dump(mode="json", by_alias=True)
    return [_without_places(settings), prints.data(config, recipe_folder)]


def _without_places(table: Mapping[str, Any]) -> dict[str, Any]:
    """A data table without what says where files are, also in the table of its validation texts."""
    return {
        name: _without_places(table_of(value)) if isinstance(value, dict) else value
        for name, value in table.items()
        if name not in DATA_PLACES
    }


def _settings(step: Config, anonymous: Sequence[Reference]) -> dict[str, Any]:
    """The settings as plain data, without the words at some places and without the seed, which the
    key has in its resolved form."""
    words = {reference.place: None for reference in anonymous}
    settings = with_words(as_table(step), words)
    settings.pop("seed", None)
    return settings
