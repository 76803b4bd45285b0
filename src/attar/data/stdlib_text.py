"""Running text on every machine: the sources of the running Python's standard library, and its
language reference.

A document is either a module's code, with its area of the library (`stdlib_areas`) as the source,
or a topic of Python's built-in help. The code is read and never run. The split is chosen by a hash
of the text, as in `stdlib_docs`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attar.data.config import StdlibTextData
from attar.data.stdlib_areas import area_of, stdlib_sources
from attar.data.stdlib_docs import split_of
from attar.data.tables import UNLABELLED, Split, TextData
from attar.tasks.table import CAUSAL_LM

REFERENCE = "language reference"
"""Source name of the topics of Python's help."""


def stdlib_documents() -> Iterator[tuple[str, str]]:
    """(source, text) of every document, in a fixed order."""
    root, sources = stdlib_sources()
    for file in sources:
        text = file.read_text(encoding="utf-8", errors="replace")
        if text.strip():
            yield area_of(file.relative_to(root)) or "", text
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    yield from ((REFERENCE, topics[name]) for name in sorted(topics))


def load_stdlib_text(config: StdlibTextData, recipe_folder: Path, name: str) -> TextData:
    """The documents as running text."""
    texts: dict[str, list[tuple[str]]] = {"train": [], "validation": []}
    for _, text in stdlib_documents():
        texts[split_of(text)].append((text,))
    return TextData(
        name=name,
        objective=CAUSAL_LM.name,
        label_names=(),
        metrics=CAUSAL_LM.metrics,
        splits={
            split: Split(tuple(rows), np.full(len(rows), UNLABELLED, np.int64))
            for split, rows in texts.items()
        },
    )
