"""Advice in a message names a setting that exists: whoever follows it is not told that there is no
such setting.

Every string of the source that is no docstring is looked at. What counts as naming a setting:

    text =, label_names = […]      a name before an equals sign
    set x_y, lower y.z, raise …    a name with an underscore or a dot behind such a verb
    --set data.texts.x=…           a path
    --label                        a flag of the command line

Of a dotted name, each part must be a setting inside the one before it. Left out: what the setting
does then; the tests of a message follow its advice.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel

from attar import cli
from attar.recipe.checking.mistakes import leaves
from attar.recipe.schema import Recipe

SOURCE = Path(__file__).resolve().parent.parent / "src" / "attar"
PLACE = "…"
"""Stands for what an f-string fills in."""
ASSIGNED = re.compile(
    r"(?<![\w.\-–(\[])([a-z]\w*(?:\.[\w…]+)*) = ?(?=[\[{\"'\d…]|true|false|$|,|;|:|or |and )"
)
ADVISED = re.compile(
    r"\b(?:set|lower|raise|remove|add|leave out|choose|with|drop|give|in)\s+"
    r"((?:[a-z]+[._])+[a-z]\w*)\b(?![(/])"
)
OVERRIDE = re.compile(r"--set '?([\w.…]+)=")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]+)")
FILE = re.compile(r"\w+\.(?:json|csv|argv)")
NO_SETTINGS = {
    **dict.fromkeys(
        ("model_type", "is_decoder", "do_lower_case", "max_new_tokens"), "of a model's JSON"
    ),
    **dict.fromkeys(("pad_to", "texts", "value", "n", "p"), "of Python, of TOML, or a figure"),
    **dict.fromkeys(("load", "pieces", "tag", "sequence_ids", "command"), "of Python in a snippet"),
}
OF_OTHER_PROGRAMS = {"no-deps": "pip"}


def _settings() -> tuple[set[str], set[tuple[str, str]]]:
    """Every name of a setting, and (setting, setting inside it)."""
    names: set[str] = set()
    inside: set[tuple[str, str]] = set()
    waiting, seen = [Recipe], set[type[BaseModel]]()
    while waiting:
        model = waiting.pop()
        if model in seen:
            continue
        seen.add(model)
        for name, field in model.model_fields.items():
            names |= {name, field.alias or name}
            models = leaves(field.annotation)
            waiting += models
            inner = {n for m in models for n in m.model_fields}
            inside |= {(own, n) for own in (name, field.alias or name) for n in inner}
    return names, inside


def _strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string that is no docstring."""
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in passed:
            parts = (v.value if isinstance(v, ast.Constant) else PLACE for v in node.values)
            passed |= set(map(id, node.values))
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in passed
        ):
            yield node.lineno, node.value


NAMES, INSIDE = _settings()
FLAGS = {
    option.lstrip("-")
    for command in typer.main.get_group(cli.app).commands.values()
    for parameter in command.params
    for option in (*parameter.opts, *parameter.secondary_opts)
}


def unknown(text: str) -> list[str]:
    """The names in a text that look like settings or flags and are none."""
    found = [name for form in (ASSIGNED, ADVISED, OVERRIDE) for name in form.findall(text)]
    wrong = [f"--{flag}" for flag in FLAG.findall(text) if flag not in {*FLAGS, *OF_OTHER_PROGRAMS}]
    for name in found:
        parts = [part for part in name.split(".") if part != PLACE and not part.isdigit()]
        if FILE.fullmatch(name) or not parts or parts[-1] in NO_SETTINGS:
            continue
        known = [part in NAMES for part in parts]
        is_path = parts[0] in ("steps", "data")  # then comes a name that the user gave
        pairs = list(pairwise(parts))[2 if is_path and PLACE not in name else 1 if is_path else 0 :]
        if not known[-1] or any(pair not in INSIDE for pair in pairs):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('set delimiter = ";", or raise max_set_aside', []),
        ("lower calibration.examples or add data", []),
        ("lower calibration.rows or add data", ["calibration.rows"]),
        ("choose it with column = or --label", ["column"]),
        ("--set data.….max_set_aside=1 or --sett x=1", ["--sett"]),
        ("remove max_lenght", ["max_lenght"]),
        ("set steps.….learning_rat = 1", ["steps.….learning_rat"]),
    ],
)
def test_the_test_tells_a_setting_from_none(text: str, expected: list[str]) -> None:
    assert unknown(text) == expected


def test_every_setting_and_flag_that_a_message_names_exists() -> None:
    found, wrong = 0, []
    for file in sorted(SOURCE.rglob("*.py")):
        for line, text in _strings(ast.parse(file.read_text(encoding="utf-8"))):
            if " " in text:
                found += sum(
                    len(form.findall(text)) for form in (ASSIGNED, ADVISED, OVERRIDE, FLAG)
                )
                wrong += [f"{file.name}:{line}: {name}" for name in unknown(text)]
    assert found > 250
    assert not wrong
