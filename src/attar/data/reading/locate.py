"""Find the files of each split, for the sources that read them and the fingerprint that hashes
them.

The problem: a step's key must change when the data changes, so the fingerprint and the reader must
agree exactly on the files, and the fingerprint must not import an array library. The idea: one
module that looks only at names. A file belongs to a split if its stem is the split's name, or that
name as a numbered shard (`train-00000-of-00002`) or a sample (`train_10k`).

Not covered: the hub, which has no local files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from attar.config import in_recipe_folder
from attar.data.config import (
    USUAL_SHARE,
    FilesData,
    GlueData,
    GlueTask,
    SummarizationData,
    SummarizationTask,
)
from attar.errors import DataError, UsageError
from attar.escaping import shortened

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
COMPRESSIONS = (".gz", ".zst")
MAX_SHOWN = 100
"""Maximum number of characters of a path in a message."""
SplitFiles = Mapping[str, tuple[Path, ...]]

VALIDATION_STEMS = ("validation", "dev", "valid")
TEST_STEMS = ("test",)
SHARD = re.compile(r"-\d+-of-\d+")
SAMPLE = re.compile(r"_\d+k")

PLAIN_STEMS = {"train": ("train",), "validation": ("validation",), "test": ("test",)}
MNLI_STEMS = {
    "train": ("train",),
    "validation": ("validation_matched", "validation"),
    "validation_mismatched": ("validation_mismatched",),
    "test": ("test_matched", "test"),
    "test_mismatched": ("test_mismatched",),
}


def format_of(file: Path) -> str | None:
    """The format of a file by its name, ignoring compression; None: not supported.

    Example:
        >>> format_of(Path("train.jsonl.gz")), format_of(Path("notes.md"))
        ('.jsonl', None)
    """
    bare = file.with_suffix("") if file.suffix in COMPRESSIONS else file
    return bare.suffix if bare.suffix in FORMATS else None


def stem_of(file: Path) -> str:
    """The name without format and compression.

    Example:
        >>> stem_of(Path("data/train.jsonl.gz"))
        'train'
    """
    bare = file.with_suffix("") if file.suffix in COMPRESSIONS else file
    return bare.stem


def task_files(config: GlueData | SummarizationData, recipe_folder: Path) -> SplitFiles:
    """The files of a task below `config.path`; splits without files are omitted.

    Raises:
        DataError: the task's folder does not exist, or contains no file of any split.
    """
    is_glue, task = isinstance(config, GlueData), config.task
    group = "GLUE" if is_glue else "summarization"
    tasks = get_args(GlueTask if is_glue else SummarizationTask)
    stems = MNLI_STEMS if task == "mnli" else PLAIN_STEMS
    root = in_recipe_folder(config.path or "", recipe_folder)
    folder = root / task
    try:
        is_folder = folder.is_dir()
    except (OSError, ValueError) as error:
        raise _bad_path(str(root), error) from error
    if not is_folder:
        there = (
            sorted(path.name for path in root.iterdir() if path.name in tasks)
            if root.is_dir()
            else []
        )
        raise DataError(
            f"{group} task {task!r} needs the folder {folder}, which does not exist; {root} "
            + (f"holds {', '.join(there)}" if there else f"holds no folder of a {group} task")
            + "; correct path, or leave it out to take the task from the hub"
        )
    found = _files_of_splits(_data_files(folder), stems)
    if not found:
        raise DataError(
            f"{folder} holds no split of {group} task {task!r}; expected files such as "
            "train.jsonl.gz and validation.jsonl.gz"
        )
    return found


def own_files(config: FilesData, recipe_folder: Path) -> SplitFiles:
    """The files of each split of a `files` source: a folder, a glob, or one file, which is then the
    train split.

    If none of a glob's files is named train, those without a split's name are shards of train.

    Raises:
        DataError: there are no files, a named split has no file, or two files claim one split.
    """
    pattern = os.path.expanduser(config.path)  # noqa: PTH111 - unknown users stay
    base = recipe_folder / pattern
    try:
        if base.is_file():  # even if its name looks like a pattern: data[1].csv
            files = [base] if format_of(base) else []
        elif base.is_dir():
            is_deep = config.document == "file"
            files = sorted(filter(Path.is_file, base.rglob("*"))) if is_deep else _data_files(base)
        else:
            files = _matches(pattern, recipe_folder)
    except (OSError, ValueError) as error:  # also an invalid glob such as **x
        raise _bad_path(config.path, error) from error
    if config.document == "file":
        files = [file for file in files if format_of(file) == ".txt"]
    if not files:
        raise DataError(
            f"no data file at {base}; path is a folder or a glob of {' '.join(FORMATS)} files "
            f"(.jsonl .json .csv .tsv .txt also with {' or '.join(COMPRESSIONS)}), relative to the "
            'folder of the recipe or, for a verb, to this one; with document = "file", of .txt '
            "files, below it too, each of which is a document"
        )
    if config.document == "file":
        return {"train": tuple(files)}
    stems: dict[str, Sequence[str]] = {
        "train": (config.train,),
        "validation": (config.validation,) if config.validation else VALIDATION_STEMS,
        "test": (config.test,) if config.test else TEST_STEMS,
    }
    if config.validation in TEST_STEMS and config.test is None:
        del stems["test"]
    if config.unlabelled:
        beside = base if base.is_dir() else base.parent
        stems["unlabelled"] = (_stem_in(config.unlabelled),)
        files = sorted({*files, *_claimants(_data_files(beside), stems["unlabelled"][0])})
    found = dict(_files_of_splits(files, stems))
    claimed = {file for split in found.values() for file in split}
    unclaimed = tuple(file for file in files if file not in claimed)
    if "train" not in found and unclaimed and not base.is_dir():
        found["train"] = unclaimed
    _refuse_shared_files(found)
    if "validation" in found and config.validation_share != USUAL_SHARE:  # a saved recipe has it
        raise DataError(
            f"validation_share = {config.validation_share:g} holds out rows of train, but "
            f"{found['validation'][0]} is a validation file; remove validation_share, or the file"
        )
    texts = [file for file in files if format_of(file) == ".txt"]
    for split, named in (
        ("train", config.train),
        ("validation", config.validation),
        ("test", config.test),
        ("unlabelled", config.unlabelled),
    ):
        are_enough = split == "train" and "unlabelled" in found
        if named and split not in found and not are_enough:
            raise DataError(
                f"{split} = {named!r}, but {base} has no file of that stem; it has "
                f"{', '.join(sorted({stem_of(file) for file in files}))}; name one of these with "
                f"{split} ="
                + (', or read each .txt file as a document: document = "file"' if texts else "")
            )
    return found


def _stem_in(name: str) -> str:
    """The stem that names a split: "raw" and "raw.csv" name the same file."""
    return stem_of(Path(name)) if format_of(Path(name)) else name


def _bad_path(path: str, error: Exception) -> UsageError:
    """The error for a path that the file system or glob does not accept."""
    shown = shortened(path, MAX_SHOWN)
    why = error.strerror if isinstance(error, OSError) else error
    return UsageError(
        f"path = {shown!r} cannot be read: {why}; name a folder, or a glob such as data/*.jsonl"
    )


def _refuse_shared_files(found: SplitFiles) -> None:
    """Raise if two splits share a file: a model would be evaluated on its training rows."""
    owner: dict[Path, str] = {}
    for split, files in found.items():
        for file in files:
            if file in owner:
                raise DataError(
                    f"{file} is claimed by the splits {owner[file]!r} and {split!r}; metrics on "
                    "training rows are misleading; give each split its own file, or remove "
                    "validation to hold out rows of train"
                )
            owner[file] = split


def _data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and format_of(path))


def _matches(pattern: str, recipe_folder: Path) -> list[Path]:
    path = Path(pattern)
    anchor = Path(path.anchor) if path.is_absolute() else recipe_folder
    relative = path.relative_to(path.anchor) if path.is_absolute() else path
    parts = list(relative.parts)
    while parts and parts[0] == "..":  # glob does not accept "..", so it is resolved here
        anchor, parts = anchor / "..", parts[1:]
    if not parts:
        return []
    matched = anchor.glob(str(Path(*parts)))
    return sorted(path for path in matched if path.is_file() and format_of(path))


def _files_of_splits(files: Sequence[Path], stems: Mapping[str, Sequence[str]]) -> SplitFiles:
    found = {}
    for split, names in stems.items():
        for name in names:
            claimants = _claimants(files, name)
            if claimants:
                found[split] = claimants
                break
    return found


def _claimants(files: Sequence[Path], name: str) -> tuple[Path, ...]:
    """The file of this exact name, else its shards, else its sample."""
    exact = [file for file in files if stem_of(file) == name]
    shards = [file for file in files if SHARD.fullmatch(stem_of(file).removeprefix(name))]
    samples = [file for file in files if SAMPLE.fullmatch(stem_of(file).removeprefix(name))]
    chosen = exact or shards or samples
    if len(chosen) > 1 and chosen is not shards:
        raise DataError(
            f"split {name!r} has {len(chosen)} files: {', '.join(map(str, chosen))}; keep one of "
            "them"
        )
    return tuple(chosen)
