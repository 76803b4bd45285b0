"""Predicts for every row of a file: `attar predict DIR --input --output`.

A file may be larger than memory, a job may be killed after an hour, and an unreadable row must
neither stop the job nor shift the rows after it. So rows are processed in chunks, and each finished
chunk is written to a file.

    x.csv → chunks of CHUNK_ROWS → y.csv.part/000000, 000001, … → y.csv

Running the same command again resumes after the last complete chunk if input, model and settings
are unchanged. Chunk boundaries are the same, so the result is that of an uninterrupted run, bit for
bit. `y.csv` is created only when complete. Row i of the output is row i of the input. An empty text
gets an answer; a row without a text gets none, and `error` gives the reason.

    columns of the input, then   prediction, probability, is_cut, error; for question answering also
                                 start and end, in characters; for tags, prediction is a list
    .jsonl also has              scores, by class
    .parquet also has            scores, a list in the order of label_names in its metadata
    .npy has only                scores, float32 (N, C); NaN where there is no answer
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from attar.artifacts import disk_errors_explained, read_json, sha256_of, write_bytes, write_json
from attar.data.reading.byte_lines import Unreadable, fault_of_encoding
from attar.data.reading.locate import FORMATS, format_of
from attar.data.reading.records import Record, read_records
from attar.errors import DataError, StoppedError, UsageError
from attar.export.deployed import Deployed
from attar.export.predicted_columns import (
    nested_columns_of,
    refuse_clashes,
    require_columns,
    text_columns,
)
from attar.export.prediction_writers import WRITERS, Answer, Row, Shape, columns_of
from attar.models.deployed.runtimes import DEPLOY_FILE
from attar.progress import Progress
from attar.tasks.embedding import SIDES, Side

CHUNK_ROWS = 1024
"""Rows in memory, and the maximum number lost if the job is killed."""
STATE_FILE = "state.json"


@dataclass(frozen=True)
class Form:
    """Format of a table, as in a recipe's data table."""

    delimiter: str | None = None
    """None: comma, or tab for .tsv."""
    header: bool = True

    def records(self, file: Path) -> Iterator[Record | Unreadable]:
        return read_records(file, delimiter=self.delimiter, header=self.header, blank=True)


PLAIN = Form()


@dataclass(frozen=True)
class Answered:
    """Summary of the predictions for a file."""

    output: str
    rows: int
    cut: int
    """Number of truncated texts."""
    faulty: int
    """Number of rows without an answer."""
    seconds: float
    """Duration of this call, without opening the model."""
    rows_per_s: float | None
    """Rows per second of this call after its first chunk, in which the runtime also compiles the
    model; None: fewer than two whole chunks."""


def predict_file(
    model: Deployed,
    source: Path,
    target: Path,
    *,
    text: Sequence[str] = (),
    keep: Sequence[str] | None = None,
    side: str | None = None,
    form: Form = PLAIN,
    progress: Progress,
    should_stop: Callable[[], bool] = lambda: False,
) -> Answered:
    """Predict for every row of a file.

    Args:
        text: column of the text, or the two columns of a pair; empty: detected by common names.
        keep: input columns to copy to the output; None: all.
        side: embedding models only: which prefix to put before the texts; None: query.
    Raises:
        UsageError: a column is missing, or the output path or format is not possible.
        DataError: the input is damaged, or no row has an answer.
        StoppedError: the process was asked to stop; finished chunks are kept.
    """
    began = time.monotonic()
    _check_names(source, target)
    if model.task.kind.embeds and target.suffix != ".npy":
        raise UsageError(f"a model that embeds writes its vectors to a .npy file, got {target}")
    if model.task.kind.answers_tokens and target.suffix == ".npy":
        raise UsageError(
            f"a .npy file holds a number for each class, and a model of the objective "
            f"{model.task.objective} answers with parts of texts; write to a .jsonl, .csv or "
            ".parquet"
        )
    if side is not None and not (model.task.kind.embeds and side in SIDES):
        raise UsageError(
            f"--side is {' or '.join(SIDES)}, for a model that embeds; got {side!r} for a model of "
            f"the objective {model.task.objective}"
        )
    job = _Job.of(model, source, target, text, keep, cast("Side", side or "query"), form, progress)
    total = sum(1 for _ in form.records(source))
    with (
        disk_errors_explained(target),
        progress.task(f"predict {source.name}", total) as bar,
    ):
        bar.skip(min(job.done * CHUNK_ROWS, total))
        warm_at, answered = None, 0
        for rows in job.chunks_left():
            job.finish(rows)
            answered += len(rows) if warm_at is not None else 0
            warm_at = time.monotonic() if warm_at is None else warm_at
            bar.advance(len(rows))
            if should_stop() and job.done * CHUNK_ROWS < total:
                raise StoppedError(
                    f"stopped after {job.done * CHUNK_ROWS:,} of {total:,} rows, which are kept in "
                    f"{job.folder}; run the same command to continue"
                )
        if job.faulty == total:
            shutil.rmtree(job.folder)
            raise DataError(
                f"{source}: none of its {total:,} rows can be used (the last one: "
                f"{job.last_fault}); check the file, or name its text column with --text"
            )
        rate = None
        if warm_at is not None and answered >= CHUNK_ROWS:
            rate = round(answered / (time.monotonic() - warm_at), 1)
        job.join(total)
    seconds = time.monotonic() - began
    return Answered(str(target), total, job.cut, job.faulty, round(seconds, 2), rate)


def _check_names(source: Path, target: Path) -> None:
    if format_of(source) is None:
        raise UsageError(
            f"{source} must end in one of {', '.join(FORMATS)} (or these with .gz or .zst)"
        )
    if target.suffix not in WRITERS:
        raise UsageError(f"{target} must end in one of {', '.join(WRITERS)}")
    if target.resolve() == source.resolve():
        raise UsageError(f"input and output are the same file, {source}; choose another output")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file for the output")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist; create it first")


class _Job:
    """The finished and remaining chunks of one output."""

    def __init__(
        self,
        model: Deployed,
        source: Path,
        target: Path,
        text: tuple[str, ...],
        shape: Shape,
        side: Side,
        form: Form,
    ) -> None:
        self._model, self._source, self._target, self._text = model, source, target, text
        self._shape, self._form = shape, form
        self._side: Side = side
        self._writer = WRITERS[target.suffix](shape)
        self.folder = target.with_name(target.name + ".part")
        self.done = self.cut = self.faulty = 0
        self.last_fault = ""

    @classmethod
    def of(
        cls,
        model: Deployed,
        source: Path,
        target: Path,
        text: Sequence[str],
        keep: Sequence[str] | None,
        side: Side,
        form: Form,
        progress: Progress,
    ) -> _Job:
        first = list(islice(form.records(source), CHUNK_ROWS))
        names = tuple(dict.fromkeys(n for row in first if isinstance(row, dict) for n in row))
        if not names:
            fault = next((row.reason for row in first if isinstance(row, Unreadable)), None)
            raise DataError(
                f"{source} has no rows"
                if fault is None
                else f"{source}: none of its first {len(first):,} rows can be read: {fault}"
            )
        nested = nested_columns_of(source)
        if keep is None and nested:
            progress.warn(
                f"{source}: lists and objects are not read, so the output lacks the column "
                f"{', '.join(map(repr, nested))}"
            )
        elif lost := [name for name in nested if name in (keep or ())]:
            raise UsageError(f"--keep: {lost[0]!r} of {source} is a list or an object, not read")
        plain = (name for name in names if name not in nested)
        columns = tuple(plain if keep is None else dict.fromkeys(keep))
        found = text_columns(model, source, tuple(text), names)
        require_columns(source, columns, names, "--keep")
        task = model.task
        if target.suffix != ".npy":
            refuse_clashes(columns, target, (*columns_of(task.kind), "scores"))
        width = 1 if task.kind.is_score else len(task.label_names)
        if task.kind.embeds:
            width = model.embed([""]).shape[1]
        shape = Shape(columns, task.label_names, task.kind, width, keep is None and not nested)
        job = cls(model, source, target, found, shape, side, form)
        job._open(progress)
        return job

    def _made_of(self) -> dict[str, Any]:
        """Everything that the predictions depend on."""
        stat = self._source.stat()
        return {
            "input": str(self._source.resolve()),
            "bytes": stat.st_size,
            "modified_ns": stat.st_mtime_ns,
            "model": sha256_of(self._model.folder / DEPLOY_FILE),
            "text": list(self._text),
            "columns": list(self._shape.columns),
            "keeps_all": self._shape.keeps_all,
            "side": self._side,
            "form": asdict(self._form),
            "chunk_rows": CHUNK_ROWS,
        }

    def _open(self, progress: Progress) -> None:
        """Resume the work of an earlier call, or start."""
        file = self.folder / STATE_FILE
        if self.folder.exists() and not file.is_file():
            raise UsageError(
                f"{self.folder} is in the way and was not made by attar predict; move it"
            )
        if file.is_file():
            state = read_json(file)
            if state.get("made_of") == self._made_of():
                self.done, self.cut, self.faulty = (
                    int(state[name]) for name in ("done", "cut", "faulty")
                )
                progress.say(
                    f"  continuing after {self.done * CHUNK_ROWS:,} rows of an earlier run"
                )
                return
            progress.warn(
                f"{self.folder} belongs to another input, model or settings; starting over"
            )
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        self._write_state()

    def _write_state(self) -> None:
        counts = {"done": self.done, "cut": self.cut, "faulty": self.faulty}
        write_json(self.folder / STATE_FILE, {"made_of": self._made_of(), **counts})

    def chunks_left(self) -> Iterator[list[Row]]:
        """Predict the remaining rows, one chunk at a time."""
        records = self._form.records(self._source)
        records = islice(records, self.done * CHUNK_ROWS, None)
        while chunk := list(islice(records, CHUNK_ROWS)):
            yield self._answered(chunk)

    def _answered(self, records: Sequence[Record | Unreadable]) -> list[Row]:
        asked = [_texts_of(record, self._text) for record in records]
        texts = [row for row in asked if not isinstance(row, Unreadable)]
        answers = iter(_answers(self._model, texts, self._side))
        rows: list[Row] = []
        for record, row in zip(records, asked, strict=True):
            answer = row if isinstance(row, Unreadable) else next(answers)
            plain = {} if isinstance(record, Unreadable) else record
            if isinstance(answer, Unreadable):
                rows.append(Row(plain, None, answer.reason))
            else:
                rows.append(Row(plain, answer))
        return rows

    def finish(self, rows: Sequence[Row]) -> None:
        """Write a chunk.

        Raises:
            DataError: a row has a column that the first rows lack, which a table cannot store.
        """
        if self._shape.keeps_all and self._target.suffix not in (".jsonl", ".npy"):
            more = {name for row in rows for name in row.record} - {*self._shape.columns}
            if more:
                raise DataError(
                    f"{self._source} has a column {min(more)!r} that its first {CHUNK_ROWS:,} rows "
                    f"lack, so it does not fit into {self._target.name}; write to a .jsonl file, "
                    "or choose columns with --keep"
                )
        write_bytes(self.folder / f"{self.done:06d}", self._writer.chunk(rows))
        self.done += 1
        self.cut += sum(row.answer is not None and row.answer.is_cut for row in rows)
        faults = [row.fault for row in rows if row.answer is None]
        self.faulty += len(faults)
        self.last_fault = faults[-1] if faults else self.last_fault
        self._write_state()

    def join(self, num_rows: int) -> None:
        chunks = [self.folder / f"{place:06d}" for place in range(self.done)]
        whole = self.folder / "whole"
        with whole.open("wb") as stream:
            self._writer.join(chunks, stream, num_rows)
        whole.replace(self._target)
        shutil.rmtree(self.folder)


def _answers(
    model: Deployed, texts: Sequence[tuple[str, ...]], side: Side
) -> Sequence[Answer | Unreadable]:
    """Predict for each row. If the batch raises an error, rows are processed one at a time."""
    asked: list[Any] = [row[0] if len(row) == 1 else row for row in texts]
    try:
        if model.task.kind.answers_tokens:
            return cast("Sequence[Answer]", model.answers(asked))
        return model.predict(asked, side=side)
    except UsageError as error:
        if len(asked) == 1:
            return [Unreadable(str(error).removeprefix("text 1 of 1 "))]
    return [answer for row in texts for answer in _answers(model, [row], side)]


def _texts_of(record: Record | Unreadable, columns: Sequence[str]) -> tuple[str, ...] | Unreadable:
    if isinstance(record, Unreadable):
        return record
    texts: list[str] = []
    for name in columns:
        value = record.get(name)
        if value is None:
            return Unreadable(f"no {name}")
        if isinstance(value, bool | list | dict):
            return Unreadable(f"{name} is not a text")
        text = str(value)
        if (fault := fault_of_encoding(text)) is not None:
            return fault
        texts.append(text)
    return tuple(texts)
