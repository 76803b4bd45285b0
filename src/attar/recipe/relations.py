"""What a field cannot know about its neighbours: words that must name steps or data, cycles, gates
and sweeps.

It works on the raw tables as far as they are sound, so that one wrong field does not hide a wrong
reference elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from attar.errors import did_you_mean
from attar.recipe.graph import find_cycle
from attar.recipe.mistakes import Mistake
from attar.recipe.references import ModelWord
from attar.recipe.schema import Gate, StepConfig, Sweep
from attar.recipe.steps import kind_of

RESERVED = frozenset({"logs", "recipe"})


def check_relations(content: Mapping[str, Any], recipe_folder: Path) -> list[Mistake]:
    """Every relation that does not hold, in the order of the recipe."""
    steps = _sound_steps(content.get("steps"))
    named = _names(content.get("steps"))
    data = _names(content.get("data"))
    mistakes: list[Mistake] = []
    inputs: dict[str, list[str]] = {name: [] for name in steps}
    for name, step in steps.items():
        references = kind_of(step).references(step)  # pyright: ignore[reportArgumentType]
        for word in references.models:
            problem = _model_problem(word, name, named, steps, recipe_folder)
            if problem:
                mistakes.append(Mistake(("steps", name, *_place(word.place)), problem))
            if word.word in steps:
                inputs[name].append(word.word)
        for reference in references.data:
            if reference.name not in data:
                has = f"the recipe has {', '.join(data)}" if data else "the recipe has no data"
                mistakes.append(
                    Mistake(
                        ("steps", name, *_place(reference.place)),
                        f"no [data.{reference.name}]{did_you_mean(reference.name, data)}; {has}",
                    )
                )
    cycle = find_cycle(inputs)
    if cycle:
        path = " → ".join([*cycle, cycle[0]])
        mistakes.append(
            Mistake(
                ("steps", cycle[0]),
                f"the steps go in a circle: {path} (each needs the next one first)",
            )
        )
    return mistakes + _gate_mistakes(content, named) + _sweep_mistakes(content, named)


def _sound_steps(tables: Any) -> dict[str, BaseModel]:
    """Steps that fit the schema on their own."""
    if not isinstance(tables, dict):
        return {}
    adapter: TypeAdapter[Any] = TypeAdapter(StepConfig)
    sound: dict[str, BaseModel] = {}
    for name, table in cast("dict[str, Any]", tables).items():
        try:
            sound[name] = adapter.validate_json(json.dumps(table, default=str), strict=True)
        except ValidationError:
            continue
    return sound


def _names(tables: Any) -> list[str]:
    return list(cast("dict[str, Any]", tables)) if isinstance(tables, dict) else []


def _place(dotted: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in dotted.split("."))


def _model_problem(
    word: ModelWord, owner: str, named: list[str], steps: Mapping[str, Any], recipe_folder: Path
) -> str | None:
    if word.word == owner:
        return f"step {owner!r} reads itself"
    if word.word in steps:
        run = str(steps[word.word].run)
        if run not in word.makers:
            return (
                f"step {word.word!r} is a {run!r} step and makes no model for this place; steps "
                "that "
                f"do: {', '.join(word.makers)}"
            )
        return None
    if word.word in named or word.word.startswith("demo:"):
        return None
    if (recipe_folder / Path(word.word).expanduser()).is_dir():
        return None
    near = did_you_mean(word.word, named)
    if near:
        return f"{word.word!r} is neither a step nor a folder{near}"
    if word.word.startswith((".", "/", "~")) or word.word.count("/") > 1:
        return f"folder {word.word!r} does not exist (relative paths start at {recipe_folder})"
    return None


def _gate_mistakes(content: Mapping[str, Any], named: list[str]) -> list[Mistake]:
    gates = content.get("gates")
    mistakes: list[Mistake] = []
    for index, gate in enumerate(cast("list[Any]", gates) if isinstance(gates, list) else []):
        if not isinstance(gate, dict):
            continue
        for field in ("metric", "of"):
            path = cast("dict[str, Any]", gate).get(field)
            if isinstance(path, str) and path.partition(".")[0] not in named:
                step = path.partition(".")[0]
                mistakes.append(
                    Mistake(
                        ("gates", index, field),
                        f"{path!r} begins with no step{did_you_mean(step, named)}; write "
                        "step.model.metric, such as scores.deploy.accuracy",
                    )
                )
    return mistakes


def _sweep_mistakes(content: Mapping[str, Any], named: list[str]) -> list[Mistake]:
    return []


__all__ = ["Gate", "Sweep", "check_relations"]
