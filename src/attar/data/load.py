"""Load the texts and labels of a `[data.<name>]` table: the single entry point for all sources.

The problem: a source may need a library that others do not (the hub's, Arrow), and row limits must
mean the same for all sources. The idea: a literal table from source to function, which is imported
when the source is read, and one place where rows are limited. `train_rows` takes the beginning of
one seeded permutation, so a larger number contains a smaller one. `validation_rows` uses a fixed
seed, so that all steps of a sweep evaluate on the same rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from attar.data.candidates import NEGATIVES, whole_queries, with_wrong_candidates
from attar.data.config import CorpusData, DataConfig
from attar.data.tables import Split, TextData
from attar.seeds import generator
from attar.step import MadeRows, StepContext

SOURCES = {
    "glue": "attar.data.glue:load_glue",
    "summarization": "attar.data.summarization:load_summarization",
    "files": "attar.data.files:load_files",
    "hub": "attar.data.hub:load_beginning",
    "stdlib_docs": "attar.data.stdlib_docs:load_stdlib_docs",
    "stdlib_text": "attar.data.stdlib_text:load_stdlib_text",
    "corpus": "attar.data.corpus.published:load_corpus",
}
"""Source → its function (config, recipe_folder, name) → TextData; for a corpus, with a part too."""
WITHOUT_TRAIN = {"files": "attar.data.files:load_judged", "hub": "attar.data.hub:load_judged"}
"""Source → the function to use if the train split is not needed and can be skipped."""
VALIDATION_SEED = 0
MAX_REASONS_SAID = 6


def load_data(
    config: DataConfig,
    recipe_folder: Path,
    *,
    name: str = "data",
    seed: int = 0,
    train: bool = True,
    part: str = "all",
) -> TextData:
    """Read a data set and limit its rows.

    Args:
        recipe_folder: base of relative paths in `config`.
        seed: chooses the rows that `train_rows` keeps, unless `rows_seed` is set; affects nothing
            else.
        train: whether the train split is needed; it may be present even if False.
        part: which chunks of a corpus.

    Raises:
        DataError: the data is missing, damaged, or does not match the config.
    """
    readers = SOURCES if train else SOURCES | WITHOUT_TRAIN
    parts = (part,) if isinstance(config, CorpusData) else ()
    data = _resolved(readers[config.source])(config, recipe_folder, name, *parts)
    splits = dict(data.splits)
    if config.train_rows is not None and "train" in splits:
        drawn_with = seed if config.rows_seed is None else config.rows_seed
        splits["train"] = _subset(
            splits["train"], config.train_rows, drawn_with, by_query=data.kind.ranks
        )
    if config.validation_rows is not None:
        for split in [split for split in splits if split.startswith("validation")]:
            splits[split] = _subset(
                splits[split], config.validation_rows, VALIDATION_SEED, by_query=data.kind.ranks
            )
    if data.kind.ranks:
        count = getattr(config, "negatives", None) or NEGATIVES
        splits = {
            name: each
            if each.is_labelled
            else with_wrong_candidates(each, count, f"split {name!r} of data {data.name!r}")
            for name, each in splits.items()
        }
    return replace(data, splits=splits)


def data_of(
    context: StepContext, name: str, *, part: str = "all", is_said: bool = False
) -> TextData:
    """The data that a step refers to by name, from outside or made by a step. Rows that were set
    aside are reported.

    Missing rows in a split used for evaluation change every score, so they are reported as a
    warning.

    Args:
        part: which chunks of a corpus.
        is_said: the step has read and reported this data before.
    """
    config = context.data[name]
    if isinstance(config, MadeRows):
        return _resolved(config.reader)(replace(config, part=part), context)
    data = load_data(config, context.recipe_folder, name=name, seed=context.seed, part=part)
    if is_said:
        return data
    for note in data.notes:
        context.progress.warn(f"data {name!r}: {note}")  # once, not once per step
    for split, sentence in left_out(data).items():
        is_fault = split != "train" and config.source != "stdlib_docs"  # not the user's own texts
        say = context.progress.warn if is_fault else context.progress.say
        say(f"{'' if is_fault else '  '}{context.name}: {sentence}")
    return data


def left_out(data: TextData) -> dict[str, str]:
    """Split → which of its rows were set aside, and why; only splits with such rows.

    Example:
        >>> from attar.data.tables import SetAside
        >>> lost = (SetAside("test", 7, "empty text"),)
        >>> left_out(TextData("d", "classification", ("a", "b"), (), {}, lost))
        {'test': "data 'd', split 'test': set aside 1 × empty text"}
    """
    found: dict[str, str] = {}
    for split in dict.fromkeys(row.split for row in data.set_aside):
        counts = data.set_aside_of(split)
        reasons = [f"{count:,} × {reason}" for reason, count in counts.items()]
        more = len(reasons) - MAX_REASONS_SAID
        found[split] = (
            f"data {data.name!r}, split {split!r}: set aside "
            + ", ".join(reasons[:MAX_REASONS_SAID])
            + (f", and {more} more reasons" if more > 0 else "")
        )
    return found


def _resolved(reader: str) -> Callable[..., TextData]:
    module, function = reader.split(":")
    return getattr(importlib.import_module(module), function)


def _subset(split: Split, rows: int, seed: int, *, by_query: bool) -> Split:
    order = generator(seed, "subset").permutation(len(split))
    if by_query:
        return split.rows(whole_queries(split.texts, order, rows))
    return split.rows(np.sort(order[:rows]))
