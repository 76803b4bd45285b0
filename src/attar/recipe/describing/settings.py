"""Descriptions of all settings of a recipe, for `attar explain` and the settings reference.

A topic is one table of a recipe: a step, a data source, a loss, a method. Classes with the same
`run` (the methods of quantize) form one topic with their common settings and a part for each class.
Everything is generated from the JSON schema. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from attar.data.config import DataConfig
from attar.errors import UsageError, did_you_mean
from attar.losses.config import LossConfig
from attar.recipe.checking.mistakes import leaves
from attar.recipe.describing.json_schema import TAGS, meaning_of, recipe_schema
from attar.recipe.schema import StepConfig

REF = "#/$defs/"
UNIONS = (StepConfig, DataConfig, LossConfig)
ORDER = {
    form.__name__: number
    for number, form in enumerate(leaf for union in UNIONS for leaf in leaves(union))
}
"""Class → its position in the unions of the config, which determines the order of the reference."""
PLACES = {
    "run": ("Steps", '[steps.<name>] with run = "{}"'),
    "source": ("Data", '[data.<name>] with source = "{}"'),
    "kind": ("Losses", '[[steps.<name>.losses]] with kind = "{}"'),
}
"""Discriminator → heading of its topics, and the place of such a table in a recipe."""
WHOLE = "The whole recipe"
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
NO_BOUND = 2**53
"""Limits above this are technical and are not shown."""
COUNTED = {"minItems": "at least {} of them", "maxItems": "at most {} of them"}


@dataclass(frozen=True)
class Setting:
    """One setting of a table."""

    name: str
    values: str
    """Description of the allowed values."""
    default: str
    """"default 256", in TOML syntax; "required"; or "" if it is optional."""
    meaning: str


@dataclass(frozen=True)
class Topic:
    """One table of a recipe."""

    word: str
    """Its name in `attar explain`."""
    heading: str
    """Heading that topics of one kind share."""
    place: str
    """Its place in a recipe."""
    meaning: str
    settings: tuple[Setting, ...]
    parts: tuple[Topic, ...] = ()
    """Nested tables, and methods with additional settings."""


@cache
def topics() -> Mapping[str, Topic]:
    """Word → topic, in the order of the reference."""
    schema = recipe_schema()
    found = {"recipe": _topic("recipe", WHOLE, "the top of the file", schema)}
    for name, setting in schema["properties"].items():
        for table in _tables(setting):
            found[name] = _topic(name, WHOLE, f"[{name}]", table)
    for tag, (heading, place) in PLACES.items():
        for word, tables in _by_word(tag).items():
            found[word] = _merged(word, heading, place.format(word), tables)
    parts = {part.word: part for topic in found.values() for part in topic.parts}
    return found | {word: part for word, part in parts.items() if "." not in word} | found


def explained(word: str) -> list[Topic]:
    """The topic with this name; for the name of a setting, that setting in each topic that has it.

    Raises:
        UsageError: there is no topic or setting with this name.
    """
    known = topics()
    if word in known:
        return [known[word]]
    found = [
        replace(each, settings=(setting,), parts=())
        for each in known.values()
        for setting in each.settings
        if setting.name == word
    ]
    if not found:
        names = {setting.name for each in known.values() for setting in each.settings}
        hint = did_you_mean(word, [*known, *sorted(names)])
        raise UsageError(
            f"{word!r} is neither a table nor a setting of a recipe{hint}; "
            "attar explain lists the tables"
        )
    return found


def _by_word(tag: str) -> dict[str, list[dict[str, Any]]]:
    """Value of the discriminator → its tables."""
    found: dict[str, list[dict[str, Any]]] = {}
    defined = recipe_schema()["$defs"]
    for table in sorted(defined.values(), key=lambda table: ORDER.get(table["title"], 0)):
        if word := table["properties"].get(tag, {}).get("const"):
            found.setdefault(word, []).append(table)
    return found


def _merged(word: str, heading: str, place: str, tables: Sequence[dict[str, Any]]) -> Topic:
    """One topic for the tables with the same name: their common settings, and a part for each."""
    first, *others = tables
    if not others:
        return _topic(word, heading, place, first)
    shared = {
        name: setting
        for name, setting in first["properties"].items()
        if all(table["properties"].get(name) == setting for table in others)
    }
    tag = next(name for name in first["properties"] if name in TAGS and name not in shared)
    parts: list[Topic] = []
    for table in tables:
        method = table["properties"][tag]["const"]
        own = {n: s for n, s in table["properties"].items() if n not in shared and n != tag}
        where = f'{place} and {tag} = "{method}"'
        parts.append(_topic(method, heading, where, {**table, "properties": own}))
    values = ", ".join(part.word for part in parts)
    choice = Setting(tag, f"one of {values}", "required", "Each adds the settings below.")
    whole = _topic(word, heading, place, {**first, "properties": shared})
    meaning = _shared_meaning([table["title"] for table in tables])
    return Topic(word, heading, place, meaning, (*whole.settings, choice), (*whole.parts, *parts))


def _shared_meaning(names: Sequence[str]) -> str:
    """Description of the nearest common base class."""
    first, *others = (form for form in leaves(StepConfig) if form.__name__ in names)
    shared = (base for base in first.__mro__ if all(issubclass(form, base) for form in others))
    return meaning_of(next(shared))


def _topic(word: str, heading: str, place: str, table: Mapping[str, Any]) -> Topic:
    properties = {n: s for n, s in table["properties"].items() if n not in TAGS or "const" not in s}
    required = table.get("required", ())
    settings = tuple(
        Setting(
            name,
            _values(setting),
            _default(setting, name in required),
            _meaning(setting),
        )
        for name, setting in properties.items()
    )
    parts = tuple(
        _topic(f"{word}.{name}", heading, f"{name} = {{ … }}", inner)
        for name, setting in properties.items()
        if heading != WHOLE
        for inner in _tables(setting)
    )
    return Topic(word, heading, place, table.get("description", ""), settings, parts)


def _meaning(setting: Mapping[str, Any]) -> str:
    """The description of a setting, or of the only table that it can be."""
    tables = [table.get("description", "") for table in _tables(setting)]
    return setting.get("description") or (tables[0] if len(tables) == 1 else "")


def _default(setting: Mapping[str, Any], is_required: bool) -> str:
    default = setting.get("default")
    if is_required:
        return "required"
    is_said = default not in (None, []) and not isinstance(default, dict)
    return f"default {json.dumps(default)}" if is_said else ""


def _tables(setting: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The untagged tables that a setting can be, at any depth of lists and unions."""
    if "$ref" in setting:
        table = _defined(setting)
        if not _tag(table):
            yield table
    for choice in (*setting.get("anyOf", ()), *setting.get("oneOf", ()), *_items(setting)):
        yield from _tables(choice)


def _items(setting: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = setting.get("items")
    return [items] if isinstance(items, dict) else []


def _defined(setting: Mapping[str, Any]) -> dict[str, Any]:
    return recipe_schema()["$defs"][setting["$ref"].removeprefix(REF)]


def _tag(table: Mapping[str, Any]) -> str:
    """The last discriminator value of this table; "" if there is none."""
    properties = table["properties"]
    words = [properties[tag]["const"] for tag in TAGS if "const" in properties.get(tag, {})]
    return words[-1] if words else ""


def _values(setting: Mapping[str, Any]) -> str:
    """Description of the allowed values of a setting."""
    if "$ref" in setting:
        return _tag(_defined(setting)) or "a table"
    if choices := setting.get("anyOf") or setting.get("oneOf"):
        return _joined(list(dict.fromkeys(map(_values, choices))))
    if "enum" in setting or "const" in setting:
        return _joined([json.dumps(v) for v in setting.get("enum") or [setting["const"]]])
    if setting.get("type") == "array":
        inner = setting.get("prefixItems") or _items(setting)
        counted = [
            words.format(setting[name]) for name, words in COUNTED.items() if name in setting
        ]
        kind = "list" if not inner else f"list of {_values(inner[0])}"
        return ", ".join(
            [kind, *([f"{len(inner)} of them"] if "prefixItems" in setting else counted)]
        )
    if setting.get("type") == "object":
        return "a table"
    kind = TYPES.get(setting.get("type", ""), "any value")
    bounds = {sign: setting[name] for name, sign in BOUNDS.items() if name in setting}
    said = [f"{sign} {value:,}" for sign, value in bounds.items() if value < NO_BOUND]
    return " ".join([kind, " and ".join(said)]).strip()


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
