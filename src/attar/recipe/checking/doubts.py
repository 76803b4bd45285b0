"""Warnings of `attar check`: settings that are valid but may be unintended.

The network is not used, and only the first rows of data tables are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from attar.config import in_recipe_folder
from attar.data.config import FilesData
from attar.data.fingerprint import require_there
from attar.errors import DataError, did_you_mean
from attar.models.config import FromConfig
from attar.models.sources.references import DEMO_PREFIX
from attar.recipe.checking.corpora import expected_elsewhere
from attar.recipe.schema import Recipe
from attar.recipe.steps import kind_of
from attar.selection.config import ProxyStep, ScoreStep, SelectStep, TokenizeStep
from attar.training.config import TrainStep

ROWS_LOOKED_AT = 1000


def doubts(recipe: Recipe, recipe_folder: Path) -> list[str]:
    """One sentence per warning."""
    found = chain(
        _data_elsewhere(recipe, recipe_folder),
        _hub_words(recipe, recipe_folder),
        _unseen_sources(recipe, recipe_folder),
        settings_in_doubt(recipe),
    )
    return list(dict.fromkeys(found))


def settings_in_doubt(recipe: Recipe) -> Iterator[str]:
    """Warnings that `attar run` shows too, because they affect the results."""
    yield from outside_references(recipe)
    yield from rates_for_fine_tuning(recipe)


def rates_for_fine_tuning(recipe: Recipe) -> Iterator[str]:
    """Models that start from random weights with the default learning rate for fine-tuning."""
    swept = recipe.sweep
    varied = swept.steps if swept and "learning_rate" in swept.settings else ()
    for name, step in recipe.steps.items():
        if not isinstance(step, TrainStep) or not isinstance(step.model, FromConfig):
            continue
        if "learning_rate" not in step.model_fields_set and name not in varied:
            yield (
                f"steps.{name}.learning_rate is not set: the default, {step.learning_rate:g}, is "
                "for fine-tuning and too low for random weights; try 1e-3 "
                'for a small one (0.02 with optimizer = "adafactor")'
            )


def outside_references(recipe: Recipe) -> Iterator[str]:
    """References of selections whose training data is not known from the recipe."""
    for name, step in recipe.steps.items():
        if not isinstance(step, SelectStep | ProxyStep) or "reference" not in step.scored_by:
            continue
        word = step.scored_by["reference"]
        scores = recipe.steps.get(word)
        reference = scores.model if isinstance(scores, ScoreStep) else word
        if reference not in recipe.steps:
            yield (
                f"steps.{name}.reference: {reference!r} comes from outside the recipe, so its "
                "training text is unknown; it must be a random sample of the same corpus, and "
                "must not be part of the scored text"
            )


def _data_elsewhere(recipe: Recipe, recipe_folder: Path) -> Iterator[str]:
    for word in sorted(expected_elsewhere(recipe)):
        try:
            require_there(recipe.data[word], recipe_folder)
        except DataError as error:
            yield f"data {word!r} is missing, so this recipe can be planned but not run: {error}"


def _hub_words(recipe: Recipe, recipe_folder: Path) -> Iterator[str]:
    for name, step in recipe.steps.items():
        for reference in kind_of(step).models_in(step):
            word = reference.word
            if word in recipe.steps or word.startswith(DEMO_PREFIX) or reference.wanted.steps_only:
                continue
            folder = in_recipe_folder(word, recipe_folder)
            if not folder.is_dir():
                yield (
                    f"steps.{name}.{reference.place}: {word!r} is neither a step nor a folder "
                    f"({folder} does not exist), so it is treated as a model id on the hub; attar "
                    "check does not query the hub"
                )


def _unseen_sources(recipe: Recipe, recipe_folder: Path) -> Iterator[str]:
    for name, step in recipe.steps.items():
        corpus = recipe.steps.get(step.data) if isinstance(step, SelectStep) else None
        if not isinstance(step, SelectStep) or not isinstance(corpus, TokenizeStep):
            continue
        table, column = recipe.data.get(corpus.data), corpus.source_column
        if not step.keep_by_source or not isinstance(table, FilesData) or column is None:
            continue
        seen = _first_sources(table, recipe_folder, column)
        for source in step.keep_by_source:
            if seen and source not in seen:
                yield (
                    f"steps.{name}.keep_by_source: none of the first {ROWS_LOOKED_AT:,} rows of "
                    f"data {corpus.data!r} has the source {source!r}{did_you_mean(source, seen)}; "
                    f"they have {', '.join(map(repr, seen))}"
                )


def _first_sources(table: FilesData, recipe_folder: Path, column: str) -> list[str]:
    from attar.data.files import records_of
    from attar.data.reading.locate import own_files

    files = own_files(table, recipe_folder).get("train", ())
    rows = islice(records_of(table, files), ROWS_LOOKED_AT)
    found = (row.get(column) for row in rows if isinstance(row, dict))
    return list(dict.fromkeys(str(source) for source in found if source not in (None, "")))
