"""What the models of a recipe that lie on this machine tell before anything runs.

Only what is cheap: which files there are, the headers of the weights, and `config.json`. So a
pickle, a truncated file, a folder without a tokenizer and blocks that do not exist are found by a
check, and not when the step that reads them starts. Imports no torch, and asks no hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.errors import AttarError, RecipeError
from attar.models.config import ChangedModel, FromConfig, written_config
from attar.models.sources.demo import PREFIX, demo_config
from attar.models.sources.references import find_model_folder, require_readable
from attar.models.sources.safe_files import read_config
from attar.models.structure.families import FAMILIES
from attar.models.structure.rows import not_kept
from attar.recipe.schema import Recipe
from attar.recipe.steps import kind_of

Blocks = Mapping[str, int]
"""Stack → its number of blocks."""


def require_models(recipe: Recipe, recipe_folder: Path) -> None:
    """Refuse a recipe that names a model folder which could not be read, or blocks that a model
    does not have.

    Raises:
        ModelError, ArtifactError: as the step that reads the folder.
        RecipeError: every `keep_blocks` that is out of range.
    """
    for step in recipe.steps.values():
        kind = kind_of(step)
        for reference in kind.models_in(step):
            word, wanted = reference.word, reference.wanted
            if word in recipe.steps or word.startswith(PREFIX) or wanted.steps_only:
                continue
            folder = recipe_folder / os.path.expanduser(word)  # noqa: PTH111 - unknown users stay
            if folder.is_dir():
                require_readable(
                    find_model_folder(folder),
                    weights=not wanted.tokenizer_only,
                    tokenizer=bool(kind.data_in(step)),
                )
    problems = [
        f"steps.{name}.model.keep_blocks: {problem}"
        for name, step in recipe.steps.items()
        if isinstance(model := getattr(step, "model", None), ChangedModel)
        and (problem := _problem(model, recipe, recipe_folder))
    ]
    if problems:
        raise RecipeError(problems)


def _problem(model: ChangedModel, recipe: Recipe, recipe_folder: Path) -> str | None:
    blocks = _blocks_of(model.source, recipe, recipe_folder)
    found = (not_kept(model.keep_blocks or (), count, name) for name, count in blocks.items())
    return next(filter(None, found), None)


def _blocks_of(word: str, recipe: Recipe, recipe_folder: Path) -> Blocks:
    """Of a model that a word names; empty: unknown here."""
    if word not in recipe.steps:
        return _counts(_config_of(word, recipe_folder))
    model = getattr(recipe.steps[word], "model", None)
    if isinstance(model, FromConfig):
        return _counts(written_config(model.model_dump()))
    if isinstance(model, ChangedModel):
        source = _blocks_of(model.source, recipe, recipe_folder)
        kept = model.keep_blocks
        return source if kept is None else dict.fromkeys(source, len(kept))
    return _blocks_of(model, recipe, recipe_folder) if isinstance(model, str) else {}


def _config_of(word: str, recipe_folder: Path) -> Mapping[str, Any]:
    if word.startswith(PREFIX):
        return demo_config(word)
    folder = recipe_folder / os.path.expanduser(word)  # noqa: PTH111 - unknown users stay words
    try:
        return read_config(find_model_folder(folder)) if folder.is_dir() else {}
    except AttarError:
        return {}


def _counts(config: Mapping[str, Any]) -> Blocks:
    family = FAMILIES.get(str(config.get("model_type")))
    stacks = () if family is None else family.stacks
    found = {stack.name: config.get(stack.num_blocks) for stack in stacks}
    return {name: count for name, count in found.items() if isinstance(count, int)}
