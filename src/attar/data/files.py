"""Local files as data: a folder with one file per split, a glob, or one file.

The problem: columns have arbitrary names, and files have invalid rows. The idea: guess a column if
only one is suitable, list the columns if several are, stream every row once, and let `rows` decide
which rows are kept. Without a validation file, a share of train is held out, chosen by a hash of
the texts: equal texts end up in the same split, and the choice does not depend on the order of
rows, the step or the seed, so no step trains on rows that another evaluates on.

Not supported: labels spread over several columns, more than two texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

from attar.data.config import FilesData
from attar.data.gold import GOLD
from attar.data.reading.byte_lines import Unreadable
from attar.data.reading.label_sets import every_label, labels_of
from attar.data.reading.labels import Classes
from attar.data.reading.locate import SplitFiles, format_of, own_files
from attar.data.reading.records import Record, read_document, read_records
from attar.data.reading.rows import Columns, Taken, check_set_aside, take_texts
from attar.data.tables import UNLABELLED_SPLIT, SetAside, Settled, Split, TextData
from attar.errors import DataError
from attar.numerics.metric_names import SCORES
from attar.tasks.table import Kind

ROWS_LOOKED_AT = 100
"""Number of rows from which columns are guessed."""


def load_files(config: FilesData, recipe_folder: Path, name: str) -> TextData:
    """Read every split that has a file; hold out a validation split if there is no validation file.

    Raises:
        DataError: there are no files, columns are missing, a file is damaged, or too many rows are
            unusable.
    """
    files = own_files(config, recipe_folder)
    _require_rows_to_learn_from(config, files, name)
    columns = find_columns(config, files, name)
    taken = {
        split: _taken(config, files[split], columns[split], split)
        for split in ("train", "validation", "test", UNLABELLED_SPLIT)
        if split in files
    }
    if config.kind.gives_sets:
        for rows in taken.values():
            rows.labels = [labels_of(value, config.separator) for value in rows.labels]
    first = next(iter(taken))
    try:
        label_names, notes = _label_names(config, taken[first])
    except DataError:  # too few classes, perhaps because rows were dropped for unusable texts
        train = taken[first]
        check_set_aside(name, first, train.num_read, train.set_aside, config.max_set_aside)
        raise
    classes = Classes(label_names, may_be_indices=config.label_names is not None)
    splits: dict[str, Split] = {}
    set_aside: list[SetAside] = []
    for split, rows in taken.items():
        splits[split], faults = _settle(config, rows, classes)
        check_set_aside(name, split, rows.num_read, faults, config.max_set_aside, label_names)
        set_aside += faults
    if "validation" not in splits:
        splits = _hold_out(splits, name, config)
    if UNLABELLED_SPLIT in splits:
        splits[UNLABELLED_SPLIT], seen = _unseen(splits, taken[UNLABELLED_SPLIT])
        set_aside += seen
        if "train" not in splits:
            splits["train"] = splits.pop(UNLABELLED_SPLIT)
    return TextData(
        name=name,
        objective=config.objective,
        label_names=label_names,
        metrics=_metrics(config.kind, splits["validation"]),
        splits=splits,
        set_aside=tuple(set_aside),
        notes=notes,
    )


def load_judged(config: FilesData, recipe_folder: Path, name: str) -> TextData:
    """Like `load_files`, but the train split is read only if it is needed to find the classes or to
    hold out a validation split."""
    files = own_files(config, recipe_folder)
    if config.kind.has_labels or "validation" not in files:
        return load_files(config, recipe_folder, name)
    columns = find_columns(config, files, name)["validation"]
    rows = _taken(config, files["validation"], columns, "validation")
    split, faults = _settle(config, rows, Classes(()))
    check_set_aside(name, "validation", rows.num_read, faults, config.max_set_aside)
    return TextData(
        name=name,
        objective=config.objective,
        label_names=(),
        metrics=_metrics(config.kind, split),
        splits={"validation": split},
        set_aside=tuple(faults),
    )


def _metrics(kind: Kind, validation: Split) -> tuple[str, ...]:
    """The metrics of the data. For embeddings: correlation with the scores, or retrieval metrics if
    the rows have no scores."""
    if not kind.embeds:
        return kind.metrics
    is_scored = validation.is_labelled
    return tuple(name for name in kind.metrics if (name in SCORES) is is_scored)


def _require_rows_to_learn_from(config: FilesData, files: SplitFiles, name: str) -> None:
    """Raise if there are no train rows. Unlabelled rows alone are enough only if something else
    defines the classes and there are rows to evaluate on."""
    if "train" in files:
        return
    if UNLABELLED_SPLIT not in files:
        raise DataError(
            f"data {name!r} has no train file ({', '.join(files)} only); name its stem with train ="
        )
    if "validation" not in files:
        raise DataError(
            f"data {name!r} has only unlabelled texts, and evaluation needs labelled rows; add a "
            "validation file"
        )


def _unseen(splits: Mapping[str, Split], taken: Taken) -> Settled:
    """The unlabelled rows whose texts occur in no other split. A teacher's prediction for a
    validation or test text would leak it, and a text with a label needs no prediction."""
    where = {
        texts: split
        for split in ("train", "test", "validation")
        if split in splits
        for texts in splits[split].texts
    }
    own = splits[UNLABELLED_SPLIT]
    rows = dict(zip(taken.texts, taken.rows, strict=True))
    kept = [i for i, texts in enumerate(own.texts) if texts not in where]
    seen = [
        SetAside(UNLABELLED_SPLIT, rows[texts], f"also in {where[texts]}")
        for texts in own.texts
        if texts in where
    ]
    return own.rows(kept), seen


def _taken(config: FilesData, files: tuple[Path, ...], columns: Columns, split: str) -> Taken:
    """Rows of some files with usable texts."""
    return take_texts(marked_records_of(config, files, columns), columns, split)


def _settle(config: FilesData, rows: Taken, classes: Classes) -> Settled:
    may_lack = rows.split == "test" or rows.column is None
    return GOLD[config.kind.gold].settle(rows, classes, may_lack)


def records_of(config: FilesData, files: tuple[Path, ...]) -> Iterator[Record | Unreadable]:
    """The rows of some files, or each file as one row."""
    limit = config.max_row_bytes
    if config.document == "file":
        return chain.from_iterable(read_document(file, limit) for file in files)
    return chain.from_iterable(
        read_records(file, limit, config.delimiter, header=config.header) for file in files
    )


def marked_records_of(
    config: FilesData, files: tuple[Path, ...], columns: Columns
) -> Iterator[Record | Unreadable]:
    """The same rows; for tasks that mark parts of texts, with the text and its marks."""
    records, read = records_of(config, files), GOLD[config.kind.gold].read
    if read is None:
        return records
    return (
        record if isinstance(record, Unreadable) else read(record, columns, config.label_names)
        for record in records
    )


def _first_rows(config: FilesData, files: tuple[Path, ...]) -> list[Record]:
    """Rows used to find the columns. For whole files one row is enough, because all have the same
    columns.
    """
    looked_at = 1 if config.document == "file" else ROWS_LOOKED_AT
    rows = (row for row in records_of(config, files) if isinstance(row, dict))
    return list(islice(rows, looked_at))


def _label_names(config: FilesData, train: Taken) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes, and notes for the user."""
    find, read = GOLD[config.kind.gold].find, GOLD[config.kind.gold].read
    if config.label_names is not None and read is None:
        return config.label_names, ()
    if find is None or train.column is None or not train.texts:
        return (), ()
    labels = every_label(train.labels) if config.kind.gives_sets else train.labels
    return find(labels, train.column)


def find_columns(config: FilesData, files: SplitFiles, name: str) -> Mapping[str, Columns]:
    """The columns of every split. Only .txt files and a test split may have no label.

    Raises:
        DataError: a column is missing or cannot be guessed; lists the columns that exist.
    """
    found = {}
    gold = GOLD[config.kind.gold]
    setting = gold.setting
    text = (config.text,) if isinstance(config.text, str) else config.text
    limit = config.max_row_bytes
    for split, paths in files.items():
        sample = _first_rows(config, paths)
        names = list(dict.fromkeys(name for row in sample for name in row))
        answer = answer_column(config, names)
        if not sample:  # empty or entirely unreadable; the counts of unusable rows will say which
            found[split] = Columns(text or gold.texts[:1], answer, config.id or None, limit)
            continue
        text = text or _guess_text(sample, config, name)
        if gold.is_optional and len(text) != 2:
            raise DataError(
                f"data {name!r}: {config.objective} needs two texts per row, and only one column "
                f"is read, {text[0]!r}, of {', '.join(map(repr, names))}; name two with text = "
                '["…", "…"]'
            )
        missing = [column for column in text if column not in names]
        is_unlabelled = answer not in names and (
            split == "test"
            or all(is_plain(config, path) for path in paths)
            or (gold.is_optional and setting not in config.model_fields_set)
        )
        is_unlabelled |= split == UNLABELLED_SPLIT or not (config.kind.has_gold or gold.is_optional)
        if not is_unlabelled and answer not in names:
            missing.append(answer)
        if missing:
            raise DataError(
                f"split {split!r} of data {name!r} ({paths[0]}) has no column "
                f"{' and no column '.join(map(repr, missing))}; its columns are "
                f"{', '.join(map(repr, names))}; "
                f"{_column_advice(config, paths[0], sample[0], setting)}"
            )
        if answer in text and not is_unlabelled:
            raise DataError(
                f"data {name!r}: column {answer!r} is both the text and the {setting}, so a model "
                f"would only copy it; its columns are {', '.join(map(repr, names))}; choose "
                f"another with text = or {setting} ="
            )
        found[split] = Columns(text, None if is_unlabelled else answer, config.id or None, limit)
    return found


def answer_column(config: FilesData, names: Collection[str]) -> str:
    """The answer column: the one set in the config, or else the first usual name for the task that
    exists."""
    gold = GOLD[config.kind.gold]
    if gold.setting not in config.model_fields_set:
        for name in gold.names:
            if name in names:
                return name
    return getattr(config, gold.setting)


def column_names(config: FilesData, paths: tuple[Path, ...]) -> list[str]:
    """The columns of the first rows of some files; empty if no row can be read."""
    return list(dict.fromkeys(name for row in _first_rows(config, paths) for name in row))


def is_plain(config: FilesData, file: Path) -> bool:
    """Whether each line of a file is just a text, without columns."""
    return format_of(file) == ".txt" and config.delimiter is None


def _column_advice(config: FilesData, path: Path, row: Record, setting: str) -> str:
    """Advice for a missing column. A single column is often several with another separator:
    spreadsheets write ";" in much of Europe, and tabs as "Unicode text"."""
    form = format_of(path)
    lone = next(iter(row.items())) if len(row) == 1 else ("", "")
    line = str(lone[1] if form == ".txt" else lone[0])
    if form in (".csv", ".txt") and "\t" in line:
        return r'its columns look separated by tabs: set delimiter = "\t"'
    if form in (".csv", ".txt") and ";" in line:
        return 'its columns look separated by semicolons: set delimiter = ";"'
    if form == ".tsv" and (found := next((sign for sign in ",;" if sign in line), None)):
        return f'its columns do not look separated by tabs: set delimiter = "{found}"'
    if is_plain(config, path):
        return f"a .txt file has no {setting}s: remove text, or use .csv, .tsv or .jsonl"
    choose = f"choose among them with text = and {setting} ="
    if form in (".csv", ".tsv") and config.header:
        return f"{choose}; if the first line is a row and not a header, set header = false"
    return choose


def _guess_text(sample: list[Record], config: FilesData, name: str) -> tuple[str, ...]:
    names = list(dict.fromkeys(column for row in sample for column in row))
    gold = GOLD[config.kind.gold]
    pairs = () if config.kind.is_running else gold.pairs
    pairs = [pair for pair in pairs if all(column in names for column in pair)]
    single = [(column,) for column in gold.texts if column in names]
    texts = [
        (column,)
        for column in names
        if column not in (answer_column(config, names), config.id)
        and sum(_reads_as_text(row.get(column)) for row in sample) > len(sample) / 2
    ]
    for candidates in (pairs, single, texts):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            break
    raise DataError(
        f"data {name!r}: cannot guess the text column; its columns are "
        f"{', '.join(map(repr, names))}; choose one with text = "
        '"…", or two for pairs with text = ["…", "…"]'
    )


def _reads_as_text(value: object) -> bool:
    return isinstance(value, str) and any(map(str.isalpha, value))


def _hold_out(splits: Mapping[str, Split], name: str, config: FilesData) -> dict[str, Split]:
    """Move the share of train with the smallest text hashes to validation. Equal texts, and all
    candidates of a query, stay together."""
    train = splits["train"]
    # candidates of one query, and questions about one text, stay in one split
    places = slice(None) if train.marks is None else slice(-1, None)
    places = slice(1) if config.kind.ranks else places
    hashes = [text_hash(texts[places]) for texts in train.texts]
    wanted = max(1, round(len(train) * config.validation_share))
    limit = sorted(hashes)[wanted - 1] if hashes else ""
    held_out = [i for i, value in enumerate(hashes) if value <= limit]
    kept = [i for i, value in enumerate(hashes) if value > limit]
    if not kept:
        raise DataError(
            f"data {name!r} has {len(train)} usable rows in train, too few to hold out "
            f"{config.validation_share:.0%} for validation; add rows, or a validation file"
        )
    return {**splits, "train": train.rows(kept), "validation": train.rows(held_out)}


def text_hash(texts: tuple[str, ...]) -> str:
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()
