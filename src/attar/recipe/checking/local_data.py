"""What the first rows of a recipe's own files tell before anything runs.

A table of at most SMALL_BYTES is read as a run reads it, so every fault of it is found here; of a
larger one the columns and the first rows. What is found is also told: the summary of each table.
Imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from attar.data.config import FilesData
from attar.data.look.summary import DataSummary
from attar.errors import DataError
from attar.recipe.schema import Recipe
from attar.recipe.steps import kind_of, run_of

SMALL_BYTES = 2**20
"""Of all files of a table, so that a check takes less than half a second."""
FIRST_ROWS = 1000


def look_at_data(recipe: Recipe, recipe_folder: Path) -> list[DataSummary]:
    """The summary of each table of files that a step reads.

    Raises:
        DataError: a column is missing, a file is damaged, too many rows cannot be used.
    """
    readers: dict[str, set[str]] = {}
    for step in recipe.steps.values():
        for reference in kind_of(step).data_in(step):
            readers.setdefault(reference.word, set()).add(run_of(step))
    tables = ((name, recipe.data.get(name)) for name in readers)
    return [
        _look_at(table, recipe_folder, name, texts_only=readers[name] == {"tokenize"})
        for name, table in tables
        if isinstance(table, FilesData)
    ]


def _look_at(table: FilesData, recipe_folder: Path, name: str, *, texts_only: bool) -> DataSummary:
    from attar.data.files import load_files
    from attar.data.look.one_pass import summary_of, summary_of_files
    from attar.data.reading.locate import own_files

    config = table
    if texts_only:
        from attar.data.documents import without_answers

        config = without_answers(table, recipe_folder)
        assert isinstance(config, FilesData), "files stay files"
    files = [file for split in own_files(config, recipe_folder).values() for file in split]
    if sum(file.stat().st_size for file in files) <= SMALL_BYTES:
        return summary_of(load_files(config, recipe_folder, name))
    found = summary_of_files(config, recipe_folder, name, first_rows=FIRST_ROWS)
    for split, summary in found.splits.items():
        if not summary.rows:
            reasons = ", ".join(f"{n:,} × {why}" for why, n in summary.set_aside.items())
            raise DataError(
                f"split {split!r} of data {name!r}: none of its first rows can be used "
                f"({reasons or 'there are none'}); fix the file, or choose other columns with "
                "text = and label ="
            )
    return found
