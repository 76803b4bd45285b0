"""The nine GLUE tasks, from files or from the hub, with GLUE's own label order and metrics.

The problem: nine tasks differ in columns, label names, metrics and splits, and copies of them
differ again. The idea: a literal table with one row per task. Text columns are found by any of the
names that copies use; class i is `label_names[i]`.

Source: Wang et al. 2019, GLUE (table 1 for the metrics). MNLI's two validation sets are
`validation` (matched) and `validation_mismatched`. Not included: AX, which has no training data.
Test splits on the hub are unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from attar.data.config import GlueData
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.labels import Classes
from attar.data.reading.locate import MNLI_STEMS, task_files
from attar.data.reading.records import Record, read_records
from attar.data.reading.rows import Columns, check_set_aside, settle_labels, take_texts
from attar.data.tables import UNLABELLED, SetAside, Split, TextData
from attar.errors import DataError
from attar.extras import require

ROWS_LOOKED_AT = 100
"""Number of rows searched for a readable one, to see the columns."""
HUB_DATASET = "nyu-mll/glue"
PAIR = ("sentence1", "sentence2")
PAIRED = "sentence1: {0} sentence2: {1}"
SAME = ("entailment", "not_entailment")


@dataclass(frozen=True)
class TaskRow:
    """What differs between the tasks."""

    text: tuple[tuple[str, ...], ...]
    """Names of the text columns in different copies; the first that fits is used."""
    label_names: tuple[str, ...]
    metrics: tuple[str, ...]
    template: str
    """T5's input format (arXiv 1910.10683, appendix D). The targets are the label names, or the
    number for STS-B. WNLI's format is our own: T5 used a different task format."""


TASKS: Mapping[str, TaskRow] = {
    "cola": TaskRow(
        (("sentence",),), ("unacceptable", "acceptable"), ("matthews",), "cola sentence: {0}"
    ),
    "sst2": TaskRow(
        (("sentence",),), ("negative", "positive"), ("accuracy",), "sst2 sentence: {0}"
    ),
    "mrpc": TaskRow(
        (PAIR,), ("not_equivalent", "equivalent"), ("accuracy", "f1"), f"mrpc {PAIRED}"
    ),
    "qqp": TaskRow(
        (("question1", "question2"), PAIR),
        ("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        "qqp question1: {0} question2: {1}",
    ),
    "stsb": TaskRow((PAIR,), (), ("pearson", "spearman"), f"stsb {PAIRED}"),
    "mnli": TaskRow(
        (("premise", "hypothesis"), PAIR),
        ("entailment", "neutral", "contradiction"),
        ("accuracy",),
        "mnli hypothesis: {1} premise: {0}",
    ),
    "qnli": TaskRow(
        (("question", "sentence"), PAIR), SAME, ("accuracy",), "qnli question: {0} sentence: {1}"
    ),
    "rte": TaskRow((PAIR,), SAME, ("accuracy",), f"rte {PAIRED}"),
    "wnli": TaskRow((PAIR,), ("not_entailment", "entailment"), ("accuracy",), f"wnli {PAIRED}"),
}
OUR_SPLITS = {stems[0]: split for split, stems in MNLI_STEMS.items()}
"""Split name on the hub → split name here; only MNLI's differ."""
LABEL_COLUMNS = ("label", "score")
"""The similarity score of STS-B is in `label` on the hub and in `score` in the benchmark's own
files."""


def load_glue(config: GlueData, recipe_folder: Path, name: str) -> TextData:
    """Load one task, with all splits of its source.

    Raises:
        DataError: the source is missing or damaged, or too many rows of a split are unusable.
    """
    task = TASKS[config.task]
    sources = _hub_records(config) if config.path is None else _local(config, recipe_folder)
    splits: dict[str, Split] = {}
    set_aside: list[SetAside] = []
    for split, records in sources.items():
        first = list(islice(records, ROWS_LOOKED_AT))
        columns = _columns_of(first, task, config.task, split)
        taken = take_texts(chain(first, records), columns, split)
        splits[split], faults = settle_labels(
            taken,
            Classes(task.label_names, may_be_indices=True) if task.label_names else None,
            may_lack=split.startswith("test"),
        )
        check_set_aside(name, split, taken.num_read, faults, config.max_set_aside, task.label_names)
        set_aside += faults
    return TextData(
        name=name,
        objective=config.kind.name,
        label_names=task.label_names,
        metrics=task.metrics,
        splits=splits,
        set_aside=tuple(set_aside),
        template=task.template,
    )


def _local(config: GlueData, recipe_folder: Path) -> dict[str, Iterator[Record | Unreadable]]:
    files = task_files(config, recipe_folder)
    return {split: chain.from_iterable(map(read_records, files[split])) for split in files}


def _columns_of(
    rows: list[Record | Unreadable], task: TaskRow, task_name: str, split: str
) -> Columns:
    """The columns, found from the first readable row; the task's usual ones if there is none."""
    first = next((row for row in rows if isinstance(row, dict) and row), None)
    if first is None:
        return Columns(task.text[0], LABEL_COLUMNS[0])
    text = next((names for names in task.text if all(name in first for name in names)), None)
    label = next((name for name in LABEL_COLUMNS if name in first), None)
    if text is None or (label is None and not split.startswith("test")):
        wanted = " or ".join(" + ".join(names) for names in task.text)
        raise DataError(
            f"split {split!r} of GLUE task {task_name!r} has the columns {', '.join(first)}; "
            f"needed are {wanted}, and {' or '.join(LABEL_COLUMNS)}; rename the columns, or load "
            'the files with source = "files"'
        )
    return Columns(text, label)


def _hub_records(config: GlueData) -> dict[str, Iterator[Record | Unreadable]]:
    """Load the task from the hub with `datasets`; no code of the repository is run."""
    datasets: Any = require("datasets", "hub")
    try:
        found = datasets.load_dataset(HUB_DATASET, config.task, revision=config.revision)
    except Exception as error:  # several libraries raise network errors of their own types
        raise DataError(
            f"GLUE task {config.task!r} could not be loaded from the hub ({HUB_DATASET}): "
            f"{type(error).__name__}: {error}; check the network, or set path = to a folder that "
            "holds <task>/<split>.jsonl.gz"
        ) from error
    for split in found:
        if set(found[split]["label"]) == {UNLABELLED}:  # hidden labels, not scores of STS-B
            found[split] = found[split].remove_columns("label")
    return {OUR_SPLITS.get(str(split), str(split)): iter(found[split]) for split in found}
