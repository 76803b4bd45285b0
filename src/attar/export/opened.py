"""An exported model of any task, opened: a class for each shape of an answer.

    row      Deployed   predict(texts)       class or number of each text
    rank     Deployed   rank(query, texts)   texts by how well they answer a query
    vector   Deployed   embed(texts)         a vector for each text
    tags     Tagger     tag(texts)           marks in each text
    quote    Quoter     answer(pairs)        part of a text that answers a question

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attar.export.deployed import Deployed
from attar.export.quoter import Quoter
from attar.export.tagger import Tagger
from attar.tasks.table import Answer
from attar.tasks.task import Task

OPENED: Mapping[Answer, type[Deployed]] = {
    "row": Deployed,
    "rank": Deployed,
    "vector": Deployed,
    "tags": Tagger,
    "quote": Quoter,
}
"""Shape of an answer → what gives it."""


def open_exported(folder: str | Path, threads: int | None = None) -> Deployed:
    """Open an exported folder.

    Args:
        threads: cores to use; None: all that this process may use.
    Raises:
        ArtifactError: the folder is not an exported model, or is damaged.
    """
    from attar.models.deployed.runtimes import Deployment

    Deployment.read(Path(folder))  # says what is wrong with a folder that is none
    answer = Task.read(Path(folder)).kind.answer
    return OPENED.get(answer, Deployed)(folder, threads)  # which refuses what cannot be exported
