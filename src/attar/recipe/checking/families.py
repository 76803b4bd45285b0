"""Whether a step can use a model, its family and its positions, where that can be told before
anything runs: because its config is written in the recipe, or lies in a folder already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.errors import AttarError
from attar.models.sources.references import find_model_folder
from attar.models.sources.safe_files import CONFIG_FILE, read_config
from attar.models.structure.families import FAMILIES, positions_of, without_views
from attar.recipe.checking.references import table_of

NEED_VIEWS = ("quantize", "qat", "export", "analyze")
"""Kinds of steps that look into a model."""


CUTS = ("keep_blocks", "hidden_size", "intermediate_size", "num_attention_heads")
"""What a table of a model can ask of another model's parts."""


def _needs_views(step: Mapping[str, Any]) -> bool:
    is_cut = any(name in table_of(step.get("model")) for name in CUTS)
    return is_cut or step.get("run") in NEED_VIEWS


class ModelFamilies:
    """The config of every model that a recipe names; each word is looked up once."""

    def __init__(self, steps: Mapping[str, Mapping[str, Any]], recipe_folder: Path) -> None:
        self._steps, self._recipe_folder = steps, recipe_folder
        self._configs: dict[str, Mapping[str, Any] | None] = {}

    def problem(self, word: str, step: Mapping[str, Any]) -> str | None:
        """Why a step cannot use a model; None: it can, or nothing is known of it yet. Whether
        transformers has a type without a row, only the plan can say."""
        model_type = table_of(self._config_of(word)).get("model_type")
        if model_type is None or model_type in FAMILIES or not _needs_views(step):
            return None
        return without_views(str(model_type))

    def positions(self, word: str) -> int | None:
        """Tokens of the longest text that a model can read; None: no limit, or unknown."""
        config = self._config_of(word)
        return None if config is None else positions_of(config)

    def _config_of(self, word: str) -> Mapping[str, Any] | None:
        """A step's model has the config of what it started from, but for its size."""
        passed: list[str] = []
        written: Mapping[str, Any] = {}
        while word in self._steps and word not in self._configs:
            passed.append(word)
            self._configs[word] = None  # where the steps go in a circle
            model = self._steps[word].get("model")
            written = table_of(table_of(model).get("config"))
            word = str(table_of(model).get("from", "") if isinstance(model, Mapping) else model)
        if isinstance(written.get("model_type"), str):
            found = written
        else:
            found = self._configs.get(word) or (self._in_folder(word) if word else None)
            self._configs.setdefault(word, found)
        self._configs |= dict.fromkeys(passed, found)
        return found

    def _in_folder(self, word: str) -> Mapping[str, Any] | None:
        if word in self._steps or word.startswith("demo:"):
            return None
        base = self._recipe_folder / os.path.expanduser(word)  # noqa: PTH111 - unknown users stay
        try:
            folder = find_model_folder(base)
            return read_config(folder) if (folder / CONFIG_FILE).is_file() else None
        except (AttarError, OSError, ValueError):
            return None  # the step that reads it first says what is wrong with it
