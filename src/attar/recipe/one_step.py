"""Runs one step without a recipe file: the flags of a command become a recipe.

    attar train --model demo:minilm-l6 --data glue:sst2@data --set epochs=1

is written as TOML, checked like any recipe, and saved in the run's folder, so that `attar status`
and `attar resume` work and the recipe can be copied. Relative paths start in the current folder. In
`--set`, a plain name is a setting of the step, and `data.` refers to the data table. Messages call
this table `data.texts`, which is accepted too.
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
"""Prefixes of overrides that are already relative to the whole recipe."""
JUDGING = ("train", "evaluate")
"""Commands that read the validation texts of a corpus."""
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
        verb: the step's `run`, e.g. "quantize"; also the name of the run and of the step.
        settings: the step's settings; None: not given. `data`, here or in `calibration`, is one of
            stdlib_docs, stdlib_text, glue:TASK[@FOLDER], corpus:FOLDER, or a folder of files or of
            chunks.
        overrides: `name=value` for other settings.
        out: folder for runs; None: `runs` in the current folder.
        quiet: no progress.
    Raises:
        RecipeError: the settings have mistakes; the message lists all.
    """
    text = recipe_text(verb, settings)
    resolved = tuple(_in_recipe(verb, override) for override in overrides)
    path = Path.cwd() / f"{verb}.toml"
    try:
        recipe = parse_recipe(text, resolved, path=path)
    except RecipeError as error:
        # The user wrote flags, not this file, so line numbers would be meaningless.
        mistakes = [LINE.sub("", mistake) for mistake in error.mistakes]
        raise RecipeError(mistakes, f"attar {verb}") from None
    # With another model or other data, it is another run and must not replace earlier results.
    name = f"{verb}-{key_of([text, *resolved])[:8]}"
    folder = Path("runs" if out is None else out) / name
    source = Source(Path.cwd(), text=text, overrides=resolved)
    return run_resolved(recipe, source, folder, progress=Progress(quiet=quiet))


def recipe_text(verb: str, settings: Mapping[str, Any]) -> str:
    """The recipe for a command with these settings.

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
    """The data table for a data argument.

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
    """Whether a folder contains a corpus or a selection instead of files to read."""
    is_step = os.path.isfile(os.path.join(word, RESULT_FILE))  # noqa: PTH113, PTH118 - any word
    return is_step and read_result(Path(word)).run in CHUNK_MAKERS


def corpus_folder(word: str) -> str | None:
    """The folder of the corpus (and tokenizer) of a data argument; None if it is not a corpus.

    Raises:
        ArtifactError, DataError: the corpus is damaged.
    """
    table = data_table(word)
    if table["source"] != "corpus":
        return None
    from attar.data.corpus.published import open_published

    return str(open_published(table["path"], Path()).corpus.folder)


def _meant_for(verb: str, word: str) -> dict[str, Any]:
    """Additional settings of the data table for a command: running text for commands that only read
    running text, and validation texts for models that are trained on chunks."""
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
    """Format a value as TOML. JSON strings, integers, booleans and lists are valid TOML, except for
    a raw DEL; floats are written as in Python, because JSON has no nan."""
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
