"""Checks local data files and model folders of a recipe before anything runs.

A table of at most SMALL_BYTES is read completely, as in a run, so all of its errors are found; for
larger tables, only the columns and the first rows are read. A summary of each table is returned.
For model folders, only cheap checks are made: the files, the headers of the weights, and
`config.json`. Imports no torch and does not use the hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attar.config import in_recipe_folder
from attar.data.config import FilesData
from attar.data.look.summary import DataSummary
from attar.errors import DataError, RecipeError
from attar.models.config import ChangedModel, FromConfig, written_config
from attar.models.sources.demo import PREFIX, demo_files
from attar.models.sources.references import find_model_folder, require_readable
from attar.models.structure.families import blocks_of
from attar.models.structure.rows import not_kept
from attar.recipe.checking.relations import config_outside
from attar.recipe.schema import Recipe
from attar.recipe.steps import kind_of, run_of

SMALL_BYTES = 2**20
"""Maximum size of all files of a table, so that a check takes less than half a second."""
FIRST_ROWS = 1000
MOST_TOKENIZER_BYTES = 2**20
"""With a larger tokenizer, lengths are in words; the file of 30,000 word pieces has 0.7 MB."""
MOST_CHARACTERS = 2**18
"""Maximum number of characters to tokenize of each split, for the same reason."""


def look_at_data(recipe: Recipe, recipe_folder: Path) -> list[DataSummary]:
    """The summary of each table of files that a step reads.

    Raises:
        DataError: a column is missing, a file is damaged, or too many rows cannot be used.
    """
    readers: dict[str, list[str]] = {}
    for name, step in recipe.steps.items():
        for reference in kind_of(step).data_in(step):
            readers.setdefault(reference.word, []).append(name)
    return [
        _look_at(table, recipe, recipe_folder, name, steps)
        for name, steps in readers.items()
        if isinstance(table := recipe.data.get(name), FilesData)
    ]


def _look_at(
    table: FilesData, recipe: Recipe, recipe_folder: Path, name: str, readers: Sequence[str]
) -> DataSummary:
    """The summary of a table that some steps read."""
    from attar.data.files import load_files
    from attar.data.look.lengths import roughly_tokens_of
    from attar.data.look.one_pass import summary_of, summary_of_files
    from attar.data.reading.locate import own_files

    config = table
    if all(run_of(recipe.steps[reader]) == "tokenize" for reader in readers):
        from attar.data.documents import without_answers

        config = without_answers(table, recipe_folder)
        assert isinstance(config, FilesData), "files stay files"
    folders = (_tokenizer_folder(reader, recipe, recipe_folder) for reader in readers)
    folder = None if config.kind.is_running else next(filter(None, folders), None)
    measure = roughly_tokens_of(folder, MOST_TOKENIZER_BYTES, MOST_CHARACTERS)
    files = [file for split in own_files(config, recipe_folder).values() for file in split]
    if sum(file.stat().st_size for file in files) <= SMALL_BYTES:
        return summary_of(load_files(config, recipe_folder, name), measure)
    found = summary_of_files(config, recipe_folder, name, measure, first_rows=FIRST_ROWS)
    for split, summary in found.splits.items():
        if not summary.rows:
            reasons = ", ".join(f"{n:,} × {why}" for why, n in summary.set_aside.items())
            raise DataError(
                f"split {split!r} of data {name!r}: none of its first rows can be used "
                f"({reasons or 'there are none'}); fix the file, or choose other columns with "
                "text = and label ="
            )
    return found


def _tokenizer_folder(word: str, recipe: Recipe, recipe_folder: Path) -> Path | None:
    """The folder with the tokenizer of a step or a model; None: it is not on this machine yet."""
    while word in recipe.steps:
        step = recipe.steps[word]
        models = [reference.word for reference in kind_of(step).models_in(step)]
        if not models:
            return None
        word = models[0]
    return demo_files(word) if word.startswith(PREFIX) else _folder_of(word, recipe_folder)


def _folder_of(word: str, recipe_folder: Path) -> Path | None:
    """The model folder that a word names; None: there is none."""
    folder = in_recipe_folder(word, recipe_folder)
    return find_model_folder(folder) if folder.is_dir() else None


Blocks = Mapping[str, int]
"""Stack → number of blocks."""


def require_models(recipe: Recipe, recipe_folder: Path) -> None:
    """Check that model folders can be read and that `keep_blocks` exist.

    Raises:
        ModelError, ArtifactError: as the step that reads the folder.
        RecipeError: a `keep_blocks` is out of range; the message lists all.
    """
    for step in recipe.steps.values():
        kind = kind_of(step)
        for reference in kind.models_in(step):
            word, wanted = reference.word, reference.wanted
            if word in recipe.steps or word.startswith(PREFIX) or wanted.steps_only:
                continue
            if (folder := _folder_of(word, recipe_folder)) is not None:
                require_readable(
                    folder,
                    weights=not wanted.tokenizer_only,
                    tokenizer=bool(kind.data_in(step)),
                )
    problems = [
        f"steps.{name}.model.keep_blocks: {problem}"
        for name, step in recipe.steps.items()
        if isinstance(model := getattr(step, "model", None), ChangedModel)
        and (problem := _problem(model, recipe, recipe_folder))
    ]
    if problems:
        raise RecipeError(problems)


def _problem(model: ChangedModel, recipe: Recipe, recipe_folder: Path) -> str | None:
    blocks = _blocks_of(model.source, recipe, recipe_folder)
    found = (not_kept(model.keep_blocks or (), count, name) for name, count in blocks.items())
    return next(filter(None, found), None)


def _blocks_of(word: str, recipe: Recipe, recipe_folder: Path) -> Blocks:
    """Numbers of blocks of a model; empty if unknown."""
    if word not in recipe.steps:
        return blocks_of(config_outside(word, recipe_folder) or {})
    model = getattr(recipe.steps[word], "model", None)
    if isinstance(model, FromConfig):
        return blocks_of(written_config(model.model_dump()))
    if isinstance(model, ChangedModel):
        source = _blocks_of(model.source, recipe, recipe_folder)
        kept = model.keep_blocks
        return source if kept is None else dict.fromkeys(source, len(kept))
    return _blocks_of(model, recipe, recipe_folder) if isinstance(model, str) else {}
