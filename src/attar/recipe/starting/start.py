"""`attar new DATA`: writes a first recipe for a file, and summarizes the file.

Guesses come from `attar.data.look.guesses`, the summary from `attar.data.look.one_pass`, and the
text of the recipe from `written`. This module combines them and chooses the model, the length and
the path of the recipe. An existing file is overwritten only with `force`, and the recipe is checked
before it is written.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.artifacts import write_text
from attar.data.config import USUAL_SHARE, FilesData
from attar.data.look.guesses import Guessed, TaskName, Wishes, guess
from attar.data.look.lengths import Measure, roughly_tokens_of
from attar.data.look.one_pass import summary_of_files
from attar.data.look.summary import DataSummary, SplitSummary
from attar.data.reading.labels import require_classes, shown
from attar.data.reading.rows import advice_on
from attar.errors import DataError, UsageError
from attar.escaping import for_terminal
from attar.models.sources.demo import DEMO_MODELS, PREFIX, demo_folder
from attar.models.sources.references import find_model_folder
from attar.models.sources.safe_files import read_config
from attar.models.structure.families import blocks_of, positions_of
from attar.recipe.load import parse_recipe
from attar.recipe.starting.sizes import SIZES
from attar.recipe.starting.written import Subject, labelled, running_text
from attar.tasks.labels import match_classes
from attar.tasks.table import CLASSIFICATION

DEMO = "minilm-l6"
TOKENS_A_WORD = 1.5
"""Tokens per word of English text with a vocabulary of 30,000 word pieces, rounded up."""
FEWEST_ROWS = 20
MOST_LOST = 0.5
"""With a larger share of unusable rows, something else must be wrong."""
WANTED_ROWS, MOST_HELD_OUT = 200, 0.25
"""Validation rows to hold out of a small table: an interval of an accuracy of 95 % on 60 rows is 11
points wide, on 200 rows 6."""
LENGTH_STEP = 32
MAX_LENGTH = 512
RECIPES: Mapping[TaskName, Callable[[Subject], str]] = {
    "classes": labelled,
    "numbers": labelled,
    "pairs": labelled,
    "running_text": running_text,
}
"""Task → function that writes its recipe. Without labels, only language modelling is possible."""
NOT_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Model:
    """The model that a recipe starts from."""

    word: str
    folder: Path | None
    """Folder of the model; None: it is on the hub."""

    @property
    def measure(self) -> Measure:
        """Measure in tokens if the tokenizer is available, otherwise in words."""
        return roughly_tokens_of(self.folder)

    @property
    def config(self) -> Mapping[str, Any]:
        return {} if self.folder is None else read_config(self.folder)

    @property
    def blocks(self) -> int | None:
        """Number of blocks; None: unknown."""
        return next(iter(blocks_of(self.config).values()), None)

    def needs_new_head(self, classes: Sequence[str]) -> bool:
        """Whether the model is a classifier with other classes."""
        names = self.config.get("architectures") or [""]
        if not str(names[0]).endswith(CLASSIFICATION.heads):
            return False
        given: dict[str, str] = self.config.get("id2label") or {}
        count = len(given) or int(self.config.get("num_labels", 2))
        own = [given.get(str(i), f"LABEL_{i}") for i in range(count)]
        return match_classes(own, sorted(classes)) is None


@dataclass(frozen=True)
class NewRecipe:
    """A new recipe, with the guesses and the summary that it is based on."""

    file: Path
    guessed: Guessed
    summary: DataSummary
    size: str

    def as_json(self) -> dict[str, Any]:
        return {
            "recipe": str(self.file),
            "size": self.size,
            "task": self.guessed.task,
            "guesses": {
                g.what: {"value": g.value, "why": g.why, "change": g.change}
                for g in self.guessed.guesses
            },
            "data": self.summary.as_json(),
            "next": self.next,
        }

    @property
    def next(self) -> list[str]:
        recipe = shlex.quote(str(self.file))
        return [f"attar {verb} {recipe}" for verb in ("check", "plan", "run")]

    def text(self) -> str:
        says = ("finds mistakes", "estimates time, memory and disk", "trains and evaluates")
        width = max(map(len, self.next))
        steps = (f"  {c.ljust(width)}   {s}" for c, s in zip(self.next, says, strict=True))
        lines = [
            *said(self.guessed),
            *self.summary.lines(),
            f"wrote {self.file} (size {self.size}); attar run will write to "
            f"runs/{self.summary.name} in the folder where you start it; next:",
        ]
        return "\n".join([*map(for_terminal, lines), *map(for_terminal, steps)])


def said(guessed: Guessed) -> list[str]:
    """One line per guess, with its reason."""
    widths = [
        min(28, max(len(getattr(g, part)) for g in guessed.guesses)) for part in ("what", "value")
    ]
    return [
        f"{g.what.ljust(widths[0])}  {g.value.ljust(widths[1])}  {g.why}"
        + (f" (change: {g.change})" if g.change else "")
        for g in guessed.guesses
    ]


def new_recipe(
    data: Path,
    wishes: Wishes,
    *,
    size: str = "quick",
    model: str | None = None,
    output: Path | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> NewRecipe:
    """Inspect a file and write a recipe for it.

    Args:
        data: a file, or a folder with one file per split.
        model: a folder, a hub id or a demo model; None: all-MiniLM-L6-v2.
        output: path of the recipe; None: named after the data, in the current folder.
        force: whether to overwrite an existing recipe.
        say: called with the findings if no recipe can be written.
    Raises:
        UsageError: no task fits the data, or the recipe exists already.
        DataError: the data is damaged, or too many rows cannot be used.
    """
    if size not in SIZES:
        raise UsageError(f"no size {size!r}; choose one of {', '.join(SIZES)}")
    name = _name_of(data)
    output = Path(f"{name}.toml") if output is None else output
    if output.exists() and not force:
        raise UsageError(
            f"{output} exists already; write another file with --output, or overwrite it with "
            "--force"
        )
    if not output.parent.is_dir():
        raise UsageError(f"the folder {output.parent} does not exist; create it first")
    guessed = guess(data, wishes)
    start = _start(model, output.parent)
    summary = summary_of_files(guessed.config, data.parent, name, start.measure)
    _require_rows(data, summary)
    if guessed.task not in RECIPES:
        for line in (*said(guessed), *summary.lines()):
            say(for_terminal(line))
        raise UsageError(
            f"{data} has texts and no labels, so no classifier can be trained on it; name the "
            "label column with --label; or label some of the rows as train.csv and give the "
            "folder of both, this file named unlabelled.csv: the student learns from the teacher's "
            "answers to it; or train a language model on the text with --task running_text"
        )
    if guessed.config.kind.has_classes:
        train = summary.splits["train"]
        examples = shown(list(train.classes)) or f"counted up to {train.num_labels}"
        require_classes(train.num_labels, examples, guessed.config.label, train.rows)
    text = RECIPES[guessed.task](_subject(guessed, summary, start, name, data, output, size))
    parse_recipe(text, path=output)
    write_text(output, text)
    return NewRecipe(output, guessed, summary, size)


def _require_rows(data: Path, summary: DataSummary) -> None:
    train = summary.splits["train"]
    if train.rows >= FEWEST_ROWS and _lost(summary) <= MOST_LOST:
        return
    reasons = ", ".join(f"{count:,} × {why}" for why, count in train.set_aside.items())
    raise DataError(
        f"{data} has {train.rows} usable row{'s' * (train.rows != 1)}"
        f"{f' ({reasons})' if reasons else ''}; a model needs at least {FEWEST_ROWS} to be trained "
        f"and judged, and no more than {MOST_LOST:.0%} of the rows may be unusable: fix them, or "
        "name other columns with --text and --label",
        advice_on(train.set_aside),
    )


def _lost(summary: DataSummary) -> float:
    """The largest share of unusable rows of any split."""
    lost = ((sum(split.set_aside.values()), split.rows) for split in summary.splits.values())
    return max(unusable / max(unusable + rows, 1) for unusable, rows in lost)


def _name_of(data: Path) -> str:
    bare = data.name.partition(".")[0] or data.resolve().name
    return NOT_A_NAME.sub("_", bare).strip("_-")[:64] or "data"


def _start(word: str | None, recipe_folder: Path) -> Model:
    if word is None or word.startswith(PREFIX):
        demo = word or f"{PREFIX}{DEMO}"
        try:
            return Model(demo, demo_folder(demo))
        except UsageError:
            if word is not None:
                raise
            return Model(DEMO_MODELS[DEMO].hub_id, None)
    folder = Path(word).expanduser()
    if folder.is_dir():
        word = os.path.relpath(folder, recipe_folder) if not folder.is_absolute() else str(folder)
        return Model(word, find_model_folder(folder))
    return Model(word, None)


def _subject(
    guessed: Guessed,
    summary: DataSummary,
    model: Model,
    name: str,
    data: Path,
    output: Path,
    size: str,
) -> Subject:
    train = summary.splits["train"]
    judged = summary.splits.get("validation")
    is_running = guessed.task == "running_text"
    share = 0.0 if judged is not None else USUAL_SHARE if is_running else _held_out(train.rows)
    held_out = round(train.rows * share)
    rows = train.rows - held_out
    path = str(data) if data.is_absolute() else os.path.relpath(data, output.parent)
    settings = {"source": "files", **guessed.config.model_dump(exclude_unset=True), "path": path}
    why = {g.what: g.why for g in guessed.guesses if g.what in settings}
    lost = _lost(summary)
    if lost > FilesData.model_fields["max_set_aside"].default:
        settings |= {"max_set_aside": math.ceil(100 * lost) / 100}
        why |= {"max_set_aside": f"{lost:.1%} of the rows cannot be used; better fix them"}
    if share > USUAL_SHARE:
        settings |= {"validation_share": share}
        why |= {
            "validation_share": f"{held_out} of {train.rows:,} rows are held out for evaluation"
        }
    most = SIZES[size].rows
    if most is not None and rows > most and not is_running:
        settings |= {"train_rows": most}
        why |= {"train_rows": f"of {rows:,}, a random sample; remove this line to use all"}
    longest, lengths = _length(train, summary.unit, model.config)
    return Subject(
        name=name,
        data=settings,
        why=why,
        rows=rows,
        validation_rows=held_out if judged is None else judged.rows,
        longest=longest,
        lengths=lengths,
        size=size,
        model=model.word,
        blocks=model.blocks,
        is_score=guessed.config.kind.is_score,
        new_head=guessed.config.kind.has_classes and model.needs_new_head(list(train.classes)),
    )


def _held_out(rows: int) -> float:
    """The share of the rows to hold out: a tenth, more if that is too few rows."""
    return min(MOST_HELD_OUT, max(USUAL_SHARE, math.ceil(100 * WANTED_ROWS / rows) / 100))


def _length(split: SplitSummary, unit: str, config: Mapping[str, Any]) -> tuple[int | None, str]:
    """Maximum length in tokens, so that 95 % of the texts fit."""
    if split.lengths is None:
        return None, "longer texts are truncated"
    factor = 1.0 if unit == "tokens" else TOKENS_A_WORD
    positions = positions_of(config) if config else None
    wanted = LENGTH_STEP * math.ceil(factor * split.lengths.p95 / LENGTH_STEP)
    longest = min(max(wanted, LENGTH_STEP), MAX_LENGTH, positions or MAX_LENGTH)
    return longest, (
        f"95 % of the texts have at most {split.lengths.p95:,} {unit}, the longest "
        f"{split.lengths.longest:,}"
    )
