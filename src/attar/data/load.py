"""From a `[data.<name>]` table to texts and labels: the one door to all sources.

The problem: a source may need a library that others do not (the hub's, Arrow), and a subset must
mean the same everywhere. The idea: a literal table from source to function, imported when it is
asked for, and one place where rows are limited. `train_rows` takes the first so many of one seeded
permutation, so a larger number contains a smaller one; what is measured on (`validation_rows`) is
chosen with a fixed seed, so that all steps of a sweep measure on the same rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from attar.data.config import DataConfig
from attar.data.tables import Split, TextData
from attar.seeds import generator

SOURCES = {
    "glue": "attar.data.glue:load_glue",
    "summarization": "attar.data.summarization:load_summarization",
    "files": "attar.data.files:load_files",
    "stdlib_docs": "attar.data.stdlib_docs:load_stdlib_docs",
}
"""Source → its function (config, recipe_folder, name) → TextData."""
VALIDATION_SEED = 0


def load_data(
    config: DataConfig, recipe_folder: Path, *, name: str = "data", seed: int = 0
) -> TextData:
    """Read a data set and limit its rows.

    Args:
        recipe_folder: relative paths in `config` start here.
        seed: which rows `train_rows` keeps, unless `rows_seed` says it; nothing else depends on it.
    Raises:
        DataError: the data is missing, damaged, or not what the config says it is.
    """
    data = _source(config.source)(config, recipe_folder, name)
    splits = dict(data.splits)
    if config.train_rows is not None and "train" in splits:
        drawn_with = seed if config.rows_seed is None else config.rows_seed
        splits["train"] = _subset(splits["train"], config.train_rows, drawn_with)
    if config.validation_rows is not None:
        for split in [split for split in splits if split.startswith("validation")]:
            splits[split] = _subset(splits[split], config.validation_rows, VALIDATION_SEED)
    return replace(data, splits=splits)


def _source(source: str) -> Callable[[DataConfig, Path, str], TextData]:
    module, function = SOURCES[source].split(":")
    return getattr(importlib.import_module(module), function)


def _subset(split: Split, rows: int, seed: int) -> Split:
    chosen = generator(seed, "subset").permutation(len(split))[:rows]
    return split.rows(np.sort(chosen))
