"""What a field cannot know about its neighbours: words that must name steps or data, circles,
gates and sweeps.

It reads the plain tables and needs no sound schema, so that one wrong field does not hide a wrong
reference elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from attar.errors import AttarError, did_you_mean
from attar.recipe.checking.mistakes import Mistake, Place
from attar.recipe.checking.references import ModelWord, table_of
from attar.recipe.graph import find_cycle
from attar.recipe.steps import STEPS

Tables = Mapping[str, Mapping[str, Any]]


def check_relations(content: Mapping[str, Any], recipe_folder: Path) -> list[Mistake]:
    """Every relation that does not hold, in the order of the recipe."""
    steps = _tables(content.get("steps"))
    data = list(_tables(content.get("data")))
    mistakes: list[Mistake] = []
    inputs: dict[str, list[str]] = {}
    for name, step in steps.items():
        run = step.get("run")
        kind = STEPS.get(run) if isinstance(run, str) else None
        if kind is None:
            continue
        inputs[name] = []
        for reference in kind.models_in(step):
            problem = _model_problem(reference, name, steps, recipe_folder)
            if problem:
                mistakes.append(Mistake(_place(name, reference.place), problem))
            elif reference.word in steps:
                inputs[name].append(reference.word)
        for reference in kind.data_in(step):
            if reference.word not in data:
                has = f"the recipe has {', '.join(data)}" if data else "the recipe has no data"
                problem = f"no [data.{reference.word}]{did_you_mean(reference.word, data)}; {has}"
                mistakes.append(Mistake(_place(name, reference.place), problem))
    cycle = find_cycle(inputs)
    if cycle:
        circle = " → ".join([*cycle, cycle[0]])
        problem = f"the steps go in a circle, each needs the next one first: {circle}"
        mistakes.append(Mistake(("steps", cycle[0]), problem))
    return mistakes + _gate_mistakes(content.get("gates"), list(steps))


def _tables(value: Any) -> Tables:
    """The entries of a table that are tables themselves; the schema speaks about the others."""
    entries = table_of(value).items()
    return {name: table_of(entry) for name, entry in entries if isinstance(entry, Mapping)}


def _place(step: str, inside: str) -> Place:
    return ("steps", step, *(int(p) if p.isdigit() else p for p in inside.split(".")))


def _model_problem(
    reference: ModelWord, owner: str, steps: Tables, recipe_folder: Path
) -> str | None:
    word, wanted = reference.word, reference.wanted
    if word == owner:
        return f"step {owner!r} reads itself"
    if word in steps:
        run = str(steps[word].get("run"))
        if run in STEPS and run not in wanted.makers:
            fit = " or ".join(map(repr, wanted.makers))
            return f"step {word!r} is a {run!r} step; what is needed here is made by a {fit} step"
        return None
    if word.startswith("demo:"):
        return _demo_problem(word, wanted.needs_task)
    if (recipe_folder / Path(word).expanduser()).is_dir():
        return None
    near = did_you_mean(word, list(steps))
    if near:
        return f"{word!r} is neither a step nor a folder{near}"
    if word.startswith((".", "/", "~")) or word.count("/") > 1:
        return f"folder {word!r} does not exist (relative paths start at {recipe_folder})"
    return None


def _demo_problem(word: str, needs_task: bool) -> str | None:
    from attar.models.sources.demo import demo_model

    try:
        demo_model(word)
    except AttarError as error:
        return str(error)
    if needs_task:
        return f"{word!r} is pretrained but not fine-tuned; add a train step and name it here"
    return None


def _gate_mistakes(gates: Any, steps: Sequence[str]) -> list[Mistake]:
    mistakes: list[Mistake] = []
    for index, gate in enumerate(cast("Sequence[Any]", gates) if isinstance(gates, list) else []):
        for field in ("metric", "of"):
            path = table_of(gate).get(field)
            if not isinstance(path, str):
                continue
            step = path.partition(".")[0]
            if step not in steps:
                hint = did_you_mean(step, steps) or f"; steps: {', '.join(steps)}"
                problem = f"{path!r} begins with no step{hint}"
            elif "." not in path:
                problem = f"{path!r} names no metric; write step.model.metric or step.metric"
            else:
                continue
            mistakes.append(Mistake(("gates", index, field), problem))
    return mistakes
