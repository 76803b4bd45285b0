"""A corpus or a selection from another run, opened by its folder.

The folder's `result.json` states which step made it and the sha256 of each file. Opening does only
cheap checks: every file exists, `corpus.json` and the rows of a selection match their sha256, and
every shard's header and footer fit its size and `corpus.json`. A run checks each file's sha256 when
it computes its keys; tokens are checked against their digests whenever they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attar.artifacts import (
    RESULT_FILE,
    Result,
    damaged,
    key_of,
    read_json,
    read_result,
    require_unchanged,
    sha256_of,
)
from attar.config import in_recipe_folder
from attar.data.config import CorpusData
from attar.data.corpus.config import CHUNK_MAKERS, CORPUS_MAKERS
from attar.data.corpus.token_store import CORPUS_FILE, Corpus, ShardFiles
from attar.data.corpus.view import ALL, DIGEST_FILE, KEPT_FILE, CorpusView
from attar.data.documents import without_answers
from attar.data.load import load_data
from attar.data.tables import TextData
from attar.errors import ArtifactError, DataError, UsageError
from attar.step import MadeRows, StepContext
from attar.tasks.table import CAUSAL_LM
from attar.untrusted import checked

SMALL_FILES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(CORPUS_MAKERS, (CORPUS_FILE,)),
    "select": (KEPT_FILE, DIGEST_FILE),
}
"""Files of a step's folder whose sha256 is checked whenever the folder is opened."""
RECIPE_FILE = "recipe.json"
"""Recipe file in the folder of a run."""


@dataclass(frozen=True)
class Published:
    """The published output of a tokenize, generate or select step."""

    folder: Path
    result: Result
    corpus: Corpus
    """The corpus itself, or the one that the selection was made from."""
    corpus_result: Result

    @property
    def is_selection(self) -> bool:
        return self.result.run == "select"

    def view(self, part: str = ALL) -> CorpusView:
        """The chunks as a view; for a corpus, optionally only one part.

        Raises:
            DataError: a part of a selection was requested.
        """
        if not self.is_selection:
            return CorpusView(self.corpus, part)
        if part != ALL:
            raise DataError(
                f'{self.folder} is a selection, which has no part "{part}"; leave part out, or '
                "name the corpus"
            )
        return CorpusView.of_selection(self.corpus, self.folder)

    @property
    def corpus_fingerprint(self) -> str:
        """Fingerprint of the corpus, also for a selection."""
        return key_of([_hashes(self.corpus_result)])

    def fingerprint(self, sha256: Callable[[Path], str] = sha256_of) -> str:
        """A fingerprint that is the same for equal chunks.

        Args:
            sha256: function that hashes a file; the default reads every byte.

        Raises:
            ArtifactError: a file has changed since it was written.
        """
        folders = {self.corpus.folder: self.corpus_result, self.folder: self.result}
        for folder, result in folders.items():
            require_unchanged(folder, result, result.files, sha256)
        chunks = [_hashes(self.corpus_result)]
        return key_of([*chunks, self.result.files[KEPT_FILE]] if self.is_selection else chunks)


def open_published(path: str | Path, folder: Path, corpus: str | None = None) -> Published:
    """Open a published corpus or selection.

    Args:
        folder: base of relative paths.
        corpus: folder of a selection's corpus; None: as recorded in the selection.

    Raises:
        ArtifactError, DataError: the folder is missing, was not made by such a step, is damaged, or
            is a selection from another corpus.
    """
    place = in_recipe_folder(path, folder)
    result = _result(place, CHUNK_MAKERS)
    if result.run in CORPUS_MAKERS:
        return Published(place, result, _whole_corpus(place, result), result)
    corpus_folder = in_recipe_folder(corpus, folder) if corpus else _corpus_folder(place, result)
    corpus_result = _result(corpus_folder, CORPUS_MAKERS)
    found = Published(place, result, _whole_corpus(corpus_folder, corpus_result), corpus_result)
    _require_own_corpus(found)
    _ = found.view()  # checks the rows of a selection
    return found


def load_corpus(config: CorpusData, recipe_folder: Path, name: str, part: str = ALL) -> TextData:
    """The chunks as training rows, read on demand, and the validation texts."""
    chunks = open_published(config.path, recipe_folder, config.corpus).view(part)
    splits = {"train": chunks.split()}
    if config.validation is not None:
        table = without_answers(config.validation, recipe_folder)
        texts = load_data(table, recipe_folder, name=name, train=False)
        splits["validation"] = texts.split("validation")
    return TextData(
        name=name,
        objective=CAUSAL_LM.name,
        label_names=(),
        metrics=CAUSAL_LM.metrics,
        splits=splits,
    )


def corpus_of(context: StepContext, name: str) -> Corpus:
    """Open the corpus that a recipe refers to by name, made by a step or published by another run.

    Raises:
        UsageError: the data is not a corpus.
        ArtifactError, DataError: see `open_published`.
    """
    config = context.data[name]
    if isinstance(config, MadeRows) and config.step.run in CORPUS_MAKERS:
        return Corpus.open(config.folder)
    if isinstance(config, CorpusData):
        found = open_published(config.path, context.recipe_folder, config.corpus)
        if not found.is_selection:
            return found.corpus
    raise UsageError(
        f'{context.name}: data = {name!r} is not a corpus; name a step with run = "tokenize", or a '
        'table with source = "corpus" and the folder of such a step'
    )


def view_of(context: StepContext, name: str, part: str = ALL) -> tuple[CorpusView, Path | None]:
    """The chunks that a recipe refers to by name, and the folder of the selection, if it is one.

    Raises:
        UsageError: the data is neither a corpus nor a selection, or has no such part.
        ArtifactError, DataError: see `open_published`.
    """
    config = context.data[name]
    if isinstance(config, CorpusData):
        found = open_published(config.path, context.recipe_folder, config.corpus)
        return found.view(part), found.folder if found.is_selection else None
    if isinstance(config, MadeRows) and config.step.run == "select" and part == ALL:
        corpus = corpus_of(context, config.step.data)
        return CorpusView.of_selection(corpus, config.folder), config.folder
    return CorpusView(corpus_of(context, name), part), None


def texts_table(found: Published) -> dict[str, Any] | None:
    """The data table that a corpus was made from, with absolute paths, according to the recipe
    saved in its run's folder; None if there is no such recipe."""
    file = found.corpus.folder.parent / RECIPE_FILE
    saved: Any = read_json(file) if file.is_file() else {}
    try:
        name, steps = found.corpus_result.metrics["data"], saved["recipe"]["steps"]
        while name in steps:  # generated texts: follow to where their prompts come from
            name = steps[name]["data"]
        texts = dict(saved["recipe"]["data"][name])
        if texts["source"] == "corpus":
            if texts.get("validation") is None:
                beside = in_recipe_folder(texts["path"], Path(saved["recipe_folder"]))
                return texts_table(open_published(beside, Path()))
            texts = dict(texts["validation"])
        if texts.get("path"):
            texts["path"] = str(in_recipe_folder(texts["path"], Path(saved["recipe_folder"])))
    except (KeyError, TypeError):
        return None
    return {name: value for name, value in texts.items() if value is not None}


def _result(folder: Path, made_by: tuple[str, ...]) -> Result:
    """The result of a folder published by one of these steps, after checking that all files
    exist."""
    wanted = f"the folder of a step that runs {' or '.join(map(repr, made_by))}"
    if not (folder / RESULT_FILE).is_file():
        inside = sorted(file.parent.name for file in folder.glob(f"*/{RESULT_FILE}"))
        raise DataError(
            f"{folder} "
            + ("holds no published step" if folder.is_dir() else "does not exist")
            + (f"; it is a run with the steps {', '.join(inside)}" if inside else "")
            + f"; name {wanted}: runs/<name>/<step>"
        )
    result = read_result(folder)
    if result.run not in made_by:
        raise DataError(f"{folder} was made by a step that runs {result.run!r}; name {wanted}")
    absent = [name for name in result.files if not (folder / name).is_file()]
    if absent:
        raise damaged(folder, result, f"{', '.join(absent[:3])} missing")
    require_unchanged(folder, result, SMALL_FILES[result.run])
    return result


def _whole_corpus(folder: Path, result: Result) -> Corpus:
    """The corpus, after checking that each shard's size matches its header and `corpus.json`."""
    corpus = Corpus.open(folder)
    for number, said in enumerate(corpus.about["shards"]):
        files = ShardFiles(folder, number)
        try:
            chunks = len(files.arrays()["starts"]) - 1
            texts = pq.read_metadata(checked(files.texts)).num_rows
        except (ArtifactError, OSError, pa.ArrowException) as error:
            raise damaged(folder, result, f"shard {number} cannot be read: {error}") from error
        if not chunks == texts == said["chunks"]:
            counts = f"{chunks} chunks and {texts} texts, corpus.json says {said['chunks']}"
            raise damaged(folder, result, f"shard {number} has {counts}")
    return corpus


def _corpus_folder(folder: Path, result: Result) -> Path:
    """Folder of a selection's corpus: a step of the same run, or a folder named in its recipe."""
    name = str(result.metrics.get("data"))
    beside = folder.parent / name
    if (beside / RESULT_FILE).is_file():
        return beside
    recipe: Any = {}
    if (folder.parent / RECIPE_FILE).is_file():
        recipe = read_json(folder.parent / RECIPE_FILE)
    try:
        return in_recipe_folder(
            recipe["recipe"]["data"][name]["path"], Path(recipe["recipe_folder"])
        )
    except (KeyError, TypeError):
        raise DataError(
            f"{folder} is a selection from the corpus {name!r}, which is not beside it; name "
            'its folder with corpus = "…"'
        ) from None


def _require_own_corpus(found: Published) -> None:
    """Raise unless the key of the selection contains the key of this corpus or the fingerprint of
    its chunks.
    """
    made_from: Any = found.result.made_from
    data = made_from.get("data")
    match data.get("data") if isinstance(data, dict) else None:
        case str(key):
            is_own = key == found.corpus_result.key
        case [_, str(fingerprint)]:  # includes the fingerprint of its validation texts
            is_own = fingerprint.partition("-")[0] == found.corpus_fingerprint
        case _:
            is_own = False
    if not is_own:
        raise DataError(
            f"{found.folder} was selected from another corpus than {found.corpus.folder}, whose "
            'rows are other chunks; name its own with corpus = "…", or select again'
        )


def _hashes(result: Result) -> dict[str, str]:
    """sha256 of the corpus files that determine its chunks."""
    ends = (".safetensors", ".parquet", "corpus.json")
    return {name: sha256 for name, sha256 in result.files.items() if name.endswith(ends)}
