"""The JSON schema of a recipe, generated from the config classes.

pydantic derives names, types, bounds and defaults. The description of a setting is the docstring
below its field. It is read from the source only when needed, because parsing on every import would
slow down `attar check`.
There are three differences from pydantic's schema. TOML has no null, so a setting that can be None
can be left out ("not set"). The discriminator of a table (`run`, `method`, `source`, `kind`) is
required. A class is described by the first paragraph of its docstring.
Relations between tables (is this word a step?) are left to `attar check`. Imports no torch.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from attar.recipe.schema import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TAGS = ("run", "source", "kind", "method", "study")
"""Discriminators of tables."""
USUAL_STUDY = "outliers"
"""Default study of an analyze step."""
NO_VALUE = object()


@cache
def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe parsed from TOML."""
    return {"$schema": DIALECT} | Recipe.model_json_schema(schema_generator=_OfRecipes)


class _OfRecipes(GenerateJsonSchema):
    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        table = super().model_schema(schema)
        owner: type[BaseModel] = schema["cls"]
        properties: dict[str, dict[str, Any]] = table.get("properties", {})
        meanings = field_meanings(owner)
        for name, field in owner.model_fields.items():
            setting = properties.get(field.alias or name, {})
            setting.pop("title", None)
            if setting.get("default", NO_VALUE) is None:
                del setting["default"]
            if name in meanings:
                setting["description"] = meanings[name]
        tags = [
            name
            for name, setting in properties.items()
            if name in TAGS and setting.get("const", USUAL_STUDY) != USUAL_STUDY
        ]
        required = [*table.get("required", []), *tags]
        return {
            **table,
            "description": meaning_of(owner),
            "required": list(dict.fromkeys(required)),
        }


def meaning_of(owner: type[BaseModel]) -> str:
    """The first paragraph of a class's docstring, on one line."""
    return _one_line((inspect.getdoc(owner) or "").split("\n\n")[0])


def field_meanings(owner: type[BaseModel]) -> dict[str, str]:
    """Field → the docstring below it, including fields of base classes."""
    bases = [base for base in reversed(owner.__mro__) if issubclass(base, BaseModel)]
    found: dict[str, str] = {}
    for base in bases[1:]:
        found |= _docstrings_of_module(base.__module__).get(base.__name__, {})
    return found


@cache
def _docstrings_of_module(module: str) -> dict[str, dict[str, str]]:
    """Class → field → docstring, for every top-level class of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: dict(_documented(node.body)) for node in classes}


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield field.target.id, _one_line(text.value)


def _one_line(text: str) -> str:
    """Adapt a docstring to TOML, which has no None.

    Example:
        >>> _one_line("Dropout;\\n    None: the model's. None and no steps: 3.")
        "Dropout; not set: the model's. Not set and no steps: 3."
    """
    text = re.sub(r"(^|\. )None\b", r"\1Not set", " ".join(text.split()))
    return re.sub(r"\bNone\b", "not set", text)
