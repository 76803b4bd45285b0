"""What a run folder remembers of its recipe, so that `resume` and `status` need the folder
alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.artifacts import write_json
from attar.recipe.schema import Recipe

RECIPE_JSON = "recipe.json"
RECIPE_TOML = "recipe.toml"


def save_recipe(
    folder: Path, recipe: Recipe, recipe_folder: Path, source: Mapping[str, Any] | None
) -> None:
    """Write the resolved recipe, and beside it the text it came from."""
    origin = source or {}
    write_json(
        folder / RECIPE_JSON,
        {
            "recipe": recipe.model_dump(mode="json", by_alias=True),
            "recipe_folder": str(recipe_folder),
            "path": str(origin["path"]) if "path" in origin else None,
            "overrides": list(origin.get("overrides", ())),
        },
    )
    if "text" in origin:
        (folder / RECIPE_TOML).write_text(origin["text"], encoding="utf-8")
