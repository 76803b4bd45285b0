"""One step without a recipe file: the flags of a verb become the recipe they stand for.

    attar train --model demo:minilm-l6 --data glue:sst2@data --set epochs=1

is written as TOML, checked like any recipe, and saved in the run's folder, so that `attar status`
and `attar resume` know it and the next person can copy it. Relative paths start in the current
folder. In `--set`, a plain name is a setting of the step; `data.` reaches the data table. Messages
call that table `data.texts`, and that is understood too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attar.artifacts import RESULT_FILE, key_of, read_result
from attar.data.corpus.config import CHUNK_MAKERS
from attar.errors import RecipeError, UsageError
from attar.progress import Progress
from attar.recipe.load import parse_recipe
from attar.recipe.outcome.summary import RunSummary
from attar.recipe.run import run_resolved
from attar.recipe.running.saved import Source
from attar.recipe.schema import flattened
from attar.tasks.table import CAUSAL_LM

DATA_NAME = "texts"
WHOLE_RECIPE = ("seed", "name", "steps.", "gates", "sweep")
"""Overrides that already name a place in the whole recipe."""
JUDGING = ("train", "evaluate")
"""Verbs that read the validation texts of a corpus."""
LINE = re.compile(r" \(line \d+\)")


def run_one_step(
    verb: str,
    settings: Mapping[str, Any],
    overrides: Sequence[str],
    out: Path | None,
    *,
    quiet: bool = False,
) -> RunSummary:
    """Run one step in `<out>/<verb>-<hash of the settings>`.

    Args:
        verb: what the step runs, e.g. "quantize"; also the names of the run and of the step.
        settings: the step's settings; None means not given. `data`, here or in `calibration`,
            is a data word: stdlib_docs, stdlib_text, glue:TASK[@FOLDER], corpus:FOLDER, or a folder
            of files or of chunks.
        overrides: `name=value` for the rest.
        out: folder for runs; None: `runs` in the current folder.
        quiet: no progress.
    Raises:
        RecipeError: every mistake of the settings.
    """
    text = recipe_text(verb, settings)
    resolved = tuple(_in_recipe(verb, override) for override in overrides)
    path = Path.cwd() / f"{verb}.toml"
    try:
        recipe = parse_recipe(text, resolved, path=path)
    except RecipeError as error:
        # Nobody wrote the file or its lines; the flags were.
        mistakes = [LINE.sub("", mistake) for mistake in error.mistakes]
        raise RecipeError(mistakes, f"attar {verb}") from None
    # Another model or other data is another run: it must not replace what this verb made before.
    name = f"{verb}-{key_of([text, *resolved])[:8]}"
    folder = Path("runs" if out is None else out) / name
    source = Source(Path.cwd(), text=text, overrides=resolved)
    return run_resolved(recipe, source, folder, progress=Progress(quiet=quiet))


def recipe_text(verb: str, settings: Mapping[str, Any]) -> str:
    """The recipe that a verb with these settings stands for.

    Example:
        >>> print(recipe_text("evaluate", {"models": ["a"], "data": "stdlib_docs"}))
        name = "evaluate"
        <BLANKLINE>
        [data.texts]
        source = "stdlib_docs"
        <BLANKLINE>
        [steps.evaluate]
        run = "evaluate"
        models = ["a"]
        data = "texts"
        <BLANKLINE>
    """
    given = {name: value for name, value in flattened(dict(settings)).items() if value is not None}
    data_words = {name: given[name] for name in ("data", "calibration.data") if name in given}
    tables = [f"name = {json.dumps(verb)}\n"]
    for name, word in data_words.items():
        tables.append(_table(f"data.{DATA_NAME}", data_table(word) | _meant_for(verb, word)))
        given[name] = DATA_NAME
    tables.append(_table(f"steps.{verb}", {"run": verb, **given}))
    return "\n".join(tables)


def data_table(word: str) -> dict[str, str]:
    """The data table that a data word stands for.

    Example:
        >>> data_table("glue:sst2@data")
        {'source': 'glue', 'task': 'sst2', 'path': 'data'}
        >>> data_table("questions")
        {'source': 'files', 'path': 'questions'}
    """
    if word in ("stdlib_docs", "stdlib_text"):
        return {"source": word}
    source, colon, rest = word.partition(":")
    if colon and source == "glue":
        task, at, folder = rest.partition("@")
        return {"source": "glue", "task": task, **({"path": folder} if at else {})}
    if colon and source in ("files", "corpus"):
        return {"source": source, "path": rest}
    return {"source": "corpus" if _is_chunks(word) else "files", "path": word}


def _is_chunks(word: str) -> bool:
    """Whether a folder holds a corpus or a selection, and not files to read."""
    is_step = os.path.isfile(os.path.join(word, RESULT_FILE))  # noqa: PTH113, PTH118 - any word
    return is_step and read_result(Path(word)).run in CHUNK_MAKERS


def corpus_folder(word: str) -> str | None:
    """The folder of the corpus, and so of the tokenizer, that a data word leads to; None: it leads
    to none.

    Raises:
        ArtifactError, DataError: it leads to a damaged one.
    """
    table = data_table(word)
    if table["source"] != "corpus":
        return None
    from attar.data.corpus.published import open_published

    return str(open_published(table["path"], Path()).corpus.folder)


def _meant_for(verb: str, word: str) -> dict[str, Any]:
    """What a verb says of its data beside where it lies: files that it reads nothing but running
    text from, and texts that judge a model which is trained on chunks."""
    table = data_table(word)
    if verb == "tokenize" and table["source"] == "files":
        return {"objective": CAUSAL_LM.name}
    if verb in JUDGING and table["source"] == "corpus":
        from attar.data.corpus.published import open_published, texts_table

        texts = texts_table(open_published(table["path"], Path()))
        return flattened({"validation": texts}) if texts else {}
    return {}


def _table(name: str, values: Mapping[str, Any]) -> str:
    """A TOML table."""
    lines = [f"{key} = {toml_value(value)}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines]) + "\n"


def toml_value(value: Any) -> str:
    """A value as TOML writes it. JSON's strings, integers, booleans and lists are TOML's too, but
    for a raw DEL; a float is written as Python does, because JSON has no word for nan."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _in_recipe(verb: str, override: str) -> str:
    name, equals, _ = override.partition("=")
    if not equals:
        raise UsageError(f"--set {override!r} has no value; write --set name=value")
    if override.startswith("data.") and not override.startswith(f"data.{DATA_NAME}."):
        return f"data.{DATA_NAME}.{override.removeprefix('data.')}"
    if name.startswith((*WHOLE_RECIPE, "data.")):
        return override
    return f"steps.{verb}.{override}"
