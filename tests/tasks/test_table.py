"""The table of tasks is the one place that knows a task by its name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import transformers
from transformers import CONFIG_MAPPING

from attar.data.gold import GOLD
from attar.evaluation.run import JUDGES
from attar.export.deployed import ANSWERS
from attar.export.opened import OPENED
from attar.models.foreign import TASK_OF
from attar.models.structure.families import FAMILIES
from attar.numerics.metric_names import METRIC_NAMES
from attar.tasks.table import KINDS, Kind
from attar.training.objectives.preparing import EXAMPLES

EVERY_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)


def _docstrings(tree: ast.AST) -> set[ast.Constant]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def test_a_task_is_named_in_its_row_only(repository: Path) -> None:
    """Other code asks for the word of its row that it depends on."""
    found = []
    for file in sorted((repository / "src").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if not any(f'"{name}"' in text for name in KINDS):
            continue  # strings are in double quotes: the formatter sees to it
        tree = ast.parse(text)
        prose = _docstrings(tree)
        for node in ast.walk(tree):
            is_name = isinstance(node, ast.Constant) and node.value in KINDS
            if is_name and node not in prose and file.parts[-2:] != ("tasks", "table.py"):
                found.append(f"{file.name}:{node.lineno}: {node.value!r}")
    assert not found


@EVERY_KIND
def test_whatever_hangs_on_a_word_of_a_row_has_an_entry_for_it(kind: Kind) -> None:
    assert kind.gold in GOLD
    assert kind.graph in TASK_OF
    assert kind.answer in JUDGES
    assert (kind.gold, kind.answer) in EXAMPLES
    if kind.shown is not None:
        assert kind.answer in OPENED
        assert kind.embeds or kind.answers_tokens or kind.gold in ANSWERS


@EVERY_KIND
def test_a_row_measures_what_has_a_name(kind: Kind) -> None:
    assert set(kind.metrics) | {kind.selects or kind.metrics[0]} <= set(METRIC_NAMES)


@EVERY_KIND
def test_a_built_model_is_known_by_the_head_of_its_row(kind: Kind) -> None:
    """Or a saved folder without a task.json would not say what it is for."""
    built = [
        getattr(transformers, kind.classes)[CONFIG_MAPPING[name]].__name__
        for name in FAMILIES
        if name in CONFIG_MAPPING
        and CONFIG_MAPPING[name] in getattr(transformers, kind.classes)
        and not (kind.hides and name == "bart")  # refused: its class writes whole texts
    ]
    assert built
    assert not kind.heads or all(name.endswith(kind.heads) for name in built)
