"""Describes what changed between two runs: settings, seed, data, models, code.

Keys only show that something differs. The hashed content is stored with each key (`made_from` in
`result.json` and `recipe.json`) and compared here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar.errors import AttarError
from attar.recipe.checking.mistakes import shown
from attar.recipe.checking.references import table_of
from attar.recipe.load import parse_recipe, read_text
from attar.recipe.running.saved import Saved
from attar.recipe.schema import Recipe, flattened
from attar.recipe.steps import STEPS, StepKind, as_table, kind_of

NOT_RECORDED = "its inputs are not recorded (made by an earlier version of attar)"

THE_REST = "another part of the recipe has changed"
"""The additional content of a report's key."""


def input_changed(name: str) -> str:
    """What is said of a step whose input is made again."""
    return f"its input {name!r} has changed"


def changes_of(
    recipe: Recipe,
    name: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    kinds: Mapping[str, StepKind] = STEPS,
) -> list[str]:
    """Differences between two `made_from` of a step; the second is that of the current recipe."""
    if not before:
        return [NOT_RECORDED]
    step = recipe.steps[name]
    kind = kind_of(step, kinds)
    found = table_changes(before.get("settings"), after.get("settings"))
    old, new = ({key: made.get(key) for key in ("run", "seed")} for made in (before, after))
    found += table_changes(old, new)
    old, new = before.get("version"), after.get("version")
    if old != new:
        found.append(f"attar's code of this step: version {old} → {new}")
    for reference in kind.models_in(step):
        old, new = (table_of(made.get("models")).get(reference.place) for made in (before, after))
        if old != new:
            is_step = reference.word in recipe.steps
            files = f"the files of model {reference.word!r} ({old} → {new})"
            found.append(input_changed(reference.word) if is_step else files)
    for reference in kind.data_in(step):
        keys = [table_of(made.get("data")).get(reference.place) for made in (before, after)]
        if isinstance(keys[1], str):  # the key of the step that makes these rows
            found += [input_changed(reference.word)] if keys[0] != keys[1] else []
            continue
        old, new = (_data(made, reference.place) for made in (before, after))
        found += table_changes(old[0], new[0], f"data.{reference.word}.")
        if old[1] != new[1]:
            found.append(f"the content of data {reference.word!r} ({old[1]} → {new[1]})")
    return list(dict.fromkeys(found)) or [THE_REST]


def recipe_changes(saved: Saved) -> list[str] | None:
    """Differences between the saved recipe and the recipe file; None if the file cannot be read."""
    source = saved.source
    if source.path is None:
        return []
    try:
        now = parse_recipe(read_text(source.path), source.overrides, path=source.path)
    except AttarError:
        return None
    return table_changes(as_table(saved.recipe), as_table(now))


def table_changes(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Every changed setting, by dotted name.

    Example:
        >>> table_changes({"learning_rate": 1e-4, "seed": 0}, {"learning_rate": 3e-4, "seed": 0})
        ['learning_rate 0.0001 → 0.0003']
        >>> table_changes({"epochs": 12.0}, {"epochs": 60.0})
        ['epochs 12 → 60']
    """
    old, new = (flattened(dict(table_of(table))) for table in (before, after))
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return [f"{prefix}{name} {_said(old.get(name))} → {_said(new.get(name))}" for name in names]


def _said(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as in a recipe
    return "not set" if value is None else shown(value)


def _data(made_from: Mapping[str, Any], place: str) -> tuple[Any, Any]:
    """Settings and fingerprint of the data at a place."""
    content = table_of(made_from.get("data")).get(place)
    match content:
        case [settings, fingerprint]:
            return settings, fingerprint
        case _:
            return {}, None
