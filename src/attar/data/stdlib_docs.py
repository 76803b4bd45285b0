"""Labelled English text on every machine: the docstrings of the running Python's standard library.

The problem: a demo needs data, and a new machine may have no network. The idea: Python comes with a
few thousand human-written paragraphs about known subjects. Take the first paragraph of every
docstring of a module, class or function, and label it with the module's area of the library
(`stdlib_areas`).

The sources are parsed and never imported or run. A paragraph found in two areas has no clear label
and is set aside; one found twice in an area counts once, so no text is in both splits. The split is
chosen by a hash of the text, so the same text is in the same split for every Python version.

Not used: the rest of a docstring (parameters, examples), which is less like ordinary sentences.
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
"""Shorter paragraphs are a word or two ("See above."), longer ones a page; 94 % of the 8,281 first
paragraphs of CPython 3.11 are in this range."""
VALIDATION_SHARE = 1 / 6
"""About 1,200 rows on CPython 3.11: a 95 % interval of ±2.3 points at an accuracy of 0.8."""
MIN_ROWS_OF_AREA = 100
"""Some systems ship Python without tkinter or IDLE: an area with fewer rows cannot be learned or
measured as a class."""
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def load_stdlib_docs(config: StdlibDocsData, recipe_folder: Path, name: str) -> TextData:
    """The docstrings, labelled by area, in an order that depends only on the texts.

    Raises:
        DataError: this Python has no sources, or fewer than two areas have enough rows.
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
    """The split of a text, which depends on nothing else."""
    return "validation" if int(_hash_of(text)[:8], 16) < VALIDATION_SHARE * 2**32 else "train"


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


@cache
def read_areas_of_texts(root: Path, sources: tuple[Path, ...]) -> Mapping[str, Sequence[str]]:
    """Every first paragraph, with the areas in which it occurs.

    Cached for the lifetime of the process: several steps of a recipe need it, and the library of a
    running Python does not change.
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
    """The first paragraph of every docstring of a source, on one line, if it has the length of a
    sentence or two.

    A source that this Python cannot parse (a template, a parser test) yields none.
    """
    with warnings.catch_warnings():  # old sources contain escapes that newer parsers warn about
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
    """Modules, classes and functions in order. Expressions contain none and are not visited."""
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
