"""Real English with real labels on every machine: the docstrings of the running Python's standard
library.

The problem: a demonstration needs data, and a fresh machine has no network. The idea: Python
carries a few thousand paragraphs written by people about known subjects. Take the first paragraph
of every docstring of a module, class or function, and label it with the area of the library that
its module belongs to (`stdlib_areas`).

The sources are parsed and never imported or run. A paragraph found in two areas says nothing of its
area and is set aside; one found twice in an area counts once; so no text is on both sides of the
split, which goes by a hash of the text and not by its place: another Python's library gives the
same side to the same text.

Left out: the rest of a docstring (parameters, examples), which is less like a sentence the further
down one reads.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from attar.data.config import StdlibDocsData
from attar.data.stdlib_areas import AREAS, area_of, stdlib_sources
from attar.data.tables import SetAside, Split, TextData
from attar.errors import DataError
from attar.tasks.table import CLASSIFICATION

MIN_CHARACTERS, MAX_CHARACTERS = 20, 400
"""Shorter is a word or two ("See above."), longer is a page; 94 % of the 8,281 first
paragraphs of CPython 3.11 lie between them."""
VALIDATION_SHARE = 1 / 6
"""About 1,200 rows on CPython 3.11: a 95 % interval of ±2.3 points at an accuracy of 0.8."""
MIN_ROWS_OF_AREA = 100
"""Some systems ship Python without tkinter or IDLE: an area below this is not a class that can be
learnt or measured."""
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def load_stdlib_docs(config: StdlibDocsData, recipe_folder: Path, name: str) -> TextData:
    """The docstrings, labelled by area, in an order that depends on the texts only.

    Raises:
        DataError: this Python has no sources, or too few areas are left to tell apart.
    """
    root, sources = stdlib_sources()
    areas_of_text = read_areas_of_texts(root, tuple(sources))
    unambiguous = {text: areas[0] for text, areas in areas_of_text.items() if len(areas) == 1}
    sizes = Counter(unambiguous.values())
    label_names = tuple(area for area in AREAS if sizes[area] >= MIN_ROWS_OF_AREA)
    if len(label_names) < 2:
        raise DataError(
            f"the standard library of this Python has {len(unambiguous)} usable docstrings, and "
            f"only {len(label_names)} areas with at least {MIN_ROWS_OF_AREA} ({dict(sizes)}); use "
            "a Python with its whole library"
        )
    splits: dict[str, tuple[list[tuple[str]], list[int]]] = {
        "train": ([], []),
        "validation": ([], []),
    }
    set_aside = []
    for row, text in enumerate(sorted(areas_of_text, key=_hash_of)):
        split = split_of(text)
        if text not in unambiguous:
            set_aside.append(SetAside(split, row, "occurs in two areas"))
        elif unambiguous[text] not in label_names:
            set_aside.append(SetAside(split, row, "its area is too small in this Python"))
        else:
            texts, labels = splits[split]
            texts.append((text,))
            labels.append(label_names.index(unambiguous[text]))
    return TextData(
        name=name,
        objective=CLASSIFICATION.name,
        label_names=label_names,
        metrics=("accuracy",),
        splits={
            split: Split(tuple(texts), np.array(labels, dtype=np.int64))
            for split, (texts, labels) in splits.items()
        },
        set_aside=tuple(set_aside),
    )


def split_of(text: str) -> str:
    """The side a text is on, whatever else the data holds."""
    return "validation" if int(_hash_of(text)[:8], 16) < VALIDATION_SHARE * 2**32 else "train"


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


@cache
def read_areas_of_texts(root: Path, sources: tuple[Path, ...]) -> Mapping[str, Sequence[str]]:
    """Every first paragraph with the areas it stands in.

    Kept for the life of the process: the steps of a recipe ask again and again, and the library of
    a running Python does not change.
    """
    found: dict[str, list[str]] = {}
    for source in sources:
        area = area_of(source.relative_to(root))
        for text in first_paragraphs(source):
            areas = found.setdefault(text, [])
            if area is not None and area not in areas:
                areas.append(area)
    return found


def first_paragraphs(source: Path) -> Iterator[str]:
    """The first paragraph of every docstring of a source, on one line, if its length is that of a
    sentence or two.

    A source that this Python cannot parse (a template, a test of the parser) has none.
    """
    with warnings.catch_warnings():  # old sources hold escapes that newer parsers warn about
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source.read_bytes())
        except (SyntaxError, ValueError):
            return
    for node in _documented(tree):
        text = " ".join(_first_paragraph(node).split())
        if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS and text.isprintable():
            yield text


def _documented(node: ast.AST) -> Iterator[Documented]:
    """Modules, classes and functions in order; expressions, which hold none, are not visited."""
    if isinstance(node, Documented):
        yield node
    for block in ("body", "orelse", "handlers", "finalbody"):
        for child in getattr(node, block, ()):
            if isinstance(child, ast.stmt | ast.ExceptHandler):
                yield from _documented(child)


def _first_paragraph(node: Documented) -> str:
    docstring = ast.get_docstring(node, clean=False)
    if docstring is None:
        return ""
    lines = inspect.cleandoc(docstring).splitlines()
    end = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
    return "\n".join(lines[:end])
