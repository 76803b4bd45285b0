"""Converts pydantic errors to sentences with place, value, allowed values and a similar name, and
finds the line of a place in a TOML text.

Pydantic's places include the tags of unions ("steps", "int8", "quantize", "percentile",
"weight_bits"). Walking the types along the place distinguishes tags from fields and finds the model
whose field names are allowed there.

Python's TOML parser does not keep positions. A shallow scan of headers and `name =` lines finds
most of them; a place without its own line gets the line of the nearest enclosing table or setting.
Text inside multi-line strings may result in a wrong line number.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from attar.errors import NEAR, did_you_mean

Place = tuple[str | int, ...]
MAX_MISTAKES = 50
"""Maximum number of mistakes described in full; finding a similar name takes a millisecond each."""
MAX_SHOWN = 60
"""Maximum number of characters of a wrong value in a message."""


@dataclass(frozen=True)
class Mistake:
    place: Place
    text: str


@dataclass(frozen=True)
class Spot:
    """A resolved place: without tags, and with the model that owns its last name."""

    place: Place
    owner: type[BaseModel] | None
    choice: Place | None = None
    """The place of a plain union, of which every member reports its errors for one value."""


NearName = Callable[..., str]
"""(word, cutoff = NEAR) → the hint of `did_you_mean`."""


def near_names(known: Sequence[str]) -> NearName:
    """A cached `did_you_mean` among `known`, limited to `MAX_MISTAKES` words because it compares
    each word with every name."""

    @cache
    def near(word: str, cutoff: float = NEAR) -> str:
        is_enough = near.cache_info().misses > MAX_MISTAKES
        return "" if is_enough else did_you_mean(word, known, cutoff)

    return near


def listed(names: Iterable[str]) -> str:
    """Names for a message, shortened if there are many.

    Example:
        >>> listed(["a", "b"])
        'a, b'
    """
    names = list(names)
    more = f" and {len(names) - MAX_MISTAKES:,} more" if len(names) > MAX_MISTAKES else ""
    return ", ".join(names[:MAX_MISTAKES]) + more


def explain(error: ValidationError, root: type[BaseModel]) -> list[Mistake]:
    """Convert every error to a mistake. Those of one plain union are merged, or, if one member
    reports an item inside the value, only those about items are kept: the value has its form."""
    details = error.errors(include_url=False)
    spots = [_told_apart(detail, locate(root, detail["loc"])) for detail in details]
    of_items = {spot.choice for spot in spots if spot.place != spot.choice}
    found: dict[Place, list[str]] = {}
    for detail, spot in zip(details, spots, strict=True):
        if spot.place == spot.choice and spot.choice in of_items:
            continue
        texts = found.setdefault(spot.place, [])
        text = _sentence(detail, spot) if len(found) <= MAX_MISTAKES else ""
        if text not in texts:
            texts.append(text)
    return [Mistake(place, "; or ".join(texts)) for place, texts in found.items()]


def _told_apart(detail: ErrorDetails, spot: Spot) -> Spot:
    """For errors of a discriminator, the place of its field, or of the misspelt one; for an item
    that a list in a plain union lacks, that of the union."""
    if detail["type"] == "missing" and spot.choice is not None:
        return replace(spot, place=spot.choice)
    if misspelt := _misspelt_discriminator(detail):
        return replace(spot, place=(*spot.place, misspelt))
    if detail["type"] != "union_tag_invalid":
        return spot
    return replace(spot, place=(*spot.place, _discriminator(detail.get("ctx", {}))))


def _discriminator(context: Mapping[str, Any]) -> str:
    """The discriminator field, given by name or by a function of that name."""
    return str(context["discriminator"]).strip("'()")


def _misspelt_discriminator(detail: ErrorDetails) -> str | None:
    """The key of a table without its discriminator that looks like it; None if there is none."""
    if detail["type"] != "union_tag_not_found":
        return None
    wanted = [_discriminator(detail.get("ctx", {}))]
    return next((str(key) for key in detail["input"] if did_you_mean(str(key), wanted)), None)


def shown(value: Any) -> str:
    """A wrong value in TOML or JSON syntax, shortened if it is long."""
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _sentence(detail: ErrorDetails, spot: Spot) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    name = str(spot.place[-1]) if spot.place else ""
    if kind == "extra_forbidden":
        return f"unknown name{_hint(name, spot.owner)}"
    if kind == "missing":
        return "missing"
    if kind == "union_tag_not_found":
        field = _discriminator(context)
        if name == _misspelt_discriminator(detail):
            return f"unknown name{did_you_mean(name, [field])}"
        return f"{field!r} is missing; it says what kind of table this is"
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        known = [word.strip("' ") for word in str(context["expected_tags"]).split(",")]
        return f"{tag!r} is unknown{did_you_mean(tag, known)}; known: {', '.join(known)}"
    if kind == "literal_error":
        allowed = str(context["expected"])
        known = [word.strip("' ") for word in allowed.replace(" or ", ",").split(",")]
        return f"{shown(value)} is not one of {allowed}{did_you_mean(str(value), known)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return (
            f"{shown(value)} is not a valid name: use letters, digits, _ and -, beginning with a "
            "letter or digit"
        )
    expected = detail["msg"].removeprefix("Input ").replace("valid dictionary", "table")
    return f"{expected}, got {shown(value)}"


def _hint(name: str, owner: type[BaseModel] | None) -> str:
    if owner is None:
        return ""
    known = field_names(owner)
    return did_you_mean(name, known) or f"; known: {', '.join(known)}"


def field_names(owner: type[BaseModel]) -> list[str]:
    """Names of the settings of a table, as in TOML."""
    return [field.alias or name for name, field in owner.model_fields.items()]


def locate(root: type[BaseModel], loc: Sequence[str | int]) -> Spot:
    """Follow `loc` from `root` through fields, dictionaries, lists and unions, leaving out the tags
    of unions."""
    place: list[str | int] = []
    here: Any = root
    owner: type[BaseModel] | None = None
    for number, part in enumerate(loc):
        here, is_tagged, is_choice = _unwrapped(here, part)
        if is_choice:
            steps = zip(loc[number:], loc[number + 1 :], strict=False)
            items = (at for of, at in steps if isinstance(at, int) or str(of).startswith("dict["))
            return Spot((*place, *items), owner, choice=tuple(place))
        if is_tagged:
            continue
        if part == "[key]":
            continue
        place.append(part)
        if isinstance(here, type) and issubclass(here, BaseModel):
            owner = here
            here = _field_type(here, str(part))
        else:
            here = _item_type(here)
    return Spot(tuple(place), owner)


def _unwrapped(annotation: Any, part: str | int) -> tuple[Any, bool, bool]:
    """(type, whether `part` is the tag of a tagged union, or the label of a plain one)."""
    while get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        if _is_tagged(notes) and get_origin(inner) in (Union, types.UnionType):
            return _member(inner, str(part)), True, False
        annotation = inner
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) > 1:
            return annotation, False, True
        return _unwrapped(members[0], part)
    return annotation, False, False


def _is_tagged(notes: Sequence[Any]) -> bool:
    from pydantic import Discriminator

    return any(
        isinstance(note, Discriminator)
        or (isinstance(note, FieldInfo) and note.discriminator is not None)
        for note in notes
    )


def _member(union: Any, tag: str) -> Any:
    """The member of a tagged union with this tag: by its Tag, or a Literal field's default."""
    for member in get_args(union):
        notes = get_args(member)[1:] if get_origin(member) is Annotated else ()
        if any(isinstance(note, Tag) and note.tag == tag for note in notes):
            return get_args(member)[0]
        for leaf in leaves(member):
            fields = leaf.model_fields.values()
            if any(
                field.default == tag for field in fields if get_origin(field.annotation) is Literal
            ):
                return member
    return Any


def leaves(annotation: Any) -> list[type[BaseModel]]:
    """The models in a nested union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [leaf for part in get_args(annotation) for leaf in leaves(part)]


def _field_type(owner: type[BaseModel], name: str) -> Any:
    for key, field in owner.model_fields.items():
        if name in (key, field.alias):
            if field.discriminator is not None:
                return Annotated[field.annotation, field]
            return (
                Annotated[(field.annotation, *field.metadata)]
                if field.metadata
                else field.annotation
            )
    return Any


def _item_type(annotation: Any) -> Any:
    arguments = [part for part in get_args(annotation) if part is not Ellipsis]
    return arguments[-1] if arguments else Any


MAX_DEPTH = 64
"""Maximum nesting of tables and lists in a recipe; actual settings are at most eight deep."""
NAME = r"(?:[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')"
DOTTED = rf"({NAME}(?:[ \t]*\.[ \t]*{NAME}){{0,{MAX_DEPTH}}})"
ONE_NAME = re.compile(NAME)
TOO_DEEP = re.compile(
    rf"^[ \t]*\[{{0,2}}[ \t]*(?:{NAME}[ \t]*\.[ \t]*){{{MAX_DEPTH}}}", re.MULTILINE
)
"""Matches deeper dotted names, for which the time of Python's parser grows quadratically."""
HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*{DOTTED}[ \t]*\]")
ASSIGNMENT = re.compile(rf"[ \t]*{DOTTED}[ \t]*=")


def written_places(text: str) -> dict[Place, int]:
    """Place → line (from 1) of its first occurrence."""
    lines: dict[Place, int] = {}
    header: Place = ()
    counts: dict[Place, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if match := HEADER.match(line):
            header = _parts(match.group(2))
            if match.group(1) == "[[":
                index = counts.get(header, 0)
                counts[header] = index + 1
                header = (*header, index)
            lines.setdefault(header, number)
        elif match := ASSIGNMENT.match(line):
            lines.setdefault((*header, *_parts(match.group(1))), number)
    return lines


def line_of(place: Place, lines: Mapping[Place, int]) -> int | None:
    """The line of `place`, or of the nearest enclosing table or setting; None if there is none.

    Example:
        >>> lines = written_places("[steps.a]\\nmodel = { form = 'b' }")
        >>> line_of(("steps", "a", "model", "form"), lines)
        2
    """
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return None


def _parts(dotted: str) -> Place:
    """The names of a dotted TOML key, quotes removed."""
    return tuple(
        name[1:-1] if name.startswith(("'", '"')) else name for name in ONE_NAME.findall(dotted)
    )
