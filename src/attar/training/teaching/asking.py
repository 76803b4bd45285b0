"""Asking a teacher about all rows and writing down what it says, batch by batch.

Where a kill left off is remembered every few seconds in the step's scratch folder; what was written
after that is cut off and written again, the same: a batch is a pure function of its number.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from attar.artifacts import MIB, disk_errors_explained, read_json, write_json
from attar.errors import NonFiniteError, ResourceError, StoppedError
from attar.losses.targets import Outputs, Targets
from attar.numerics.logits import blocks
from attar.step import StepContext
from attar.training.objectives.examples import Examples
from attar.training.teaching.header import CacheHeader, link_or_copy
from attar.training.teaching.live import LiveTeacher
from attar.training.teaching.rows import batches_in_order
from attar.training.teaching.tensor_file import TensorWriter

PROGRESS_FILE = "progress.json"
SAVE_EVERY_S = 5.0
"""Seconds of work that are done again after a kill, at most."""
SHOWN = 5


def require_disk(header: CacheHeader, context: StepContext) -> None:
    """Refuse to begin what the disk cannot hold; what an earlier attempt wrote counts as there.

    Raises:
        ResourceError: with both numbers and what each part needs.
    """
    specs = list(header.specs.values())
    with disk_errors_explained(context.scratch):
        context.scratch.mkdir(parents=True, exist_ok=True)
    files = [spec.file(context.scratch) for spec in specs]
    there = sum(file.stat().st_size for file in files if file.is_file())
    needed = sum(spec.num_bytes for spec in specs) - there
    free = shutil.disk_usage(context.scratch).free
    if needed > free:
        parts = ", ".join(f"{spec.name} {spec.num_bytes / MIB:.1f}" for spec in specs)
        raise ResourceError(
            f"{context.name}: the cache needs {needed / MIB:.1f} MiB (MiB: {parts}), "
            f"{free / MIB:.1f} MiB are free below {context.scratch}; keep fewer hidden_states, "
            'lower train_rows, use dtype = "bf16", or choose another folder with --out'
        )


class _Writing:
    """The cache's files while they are filled; what is saved survives a kill."""

    def __init__(self, header: CacheHeader, folder: Path) -> None:
        self._header, self._folder = header, folder
        self.batches, rows = _saved(header, folder)
        self._writers = {
            key: TensorWriter(spec, folder, rows.get(spec.name, 0))
            for key, spec in header.specs.items()
        }
        self._saved_at = time.monotonic()

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def append(self, outputs: Outputs, targets: Targets, rows: np.ndarray) -> None:
        """Add the answers of the next batch.

        Args:
            rows: their numbers.
        Raises:
            NonFiniteError: one is NaN or infinite; nothing of the batch counts as written.
        """
        for key, writer in self._writers.items():
            bad: set[int] = set()
            for owners, answers in _answers(key, outputs, targets):
                finite = answers.isfinite().all(dim=-1)
                bad.update(rows[owners[~finite].cpu().numpy()].tolist())
                writer.append(answers)
            _require_none(bad, key)
        self.batches += 1
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        for writer in self._writers.values():
            writer.sync()
        rows = {self._header.specs[key].name: w.rows for key, w in self._writers.items()}
        write_json(self._folder / PROGRESS_FILE, {"batches": self.batches, "rows": rows})
        self._saved_at = time.monotonic()

    def finish(self, folder: Path) -> None:
        """Put the full files where they belong; those in scratch stay until the step is published,
        so that a kill before that loses nothing."""
        self.save()
        for key, spec in self._header.specs.items():
            self._writers[key].close()
            link_or_copy(spec.file(self._folder), spec.file(folder))


def _saved(header: CacheHeader, folder: Path) -> tuple[int, dict[str, int]]:
    """How many batches an earlier attempt saved, and rows by file; nothing, if one is shorter than
    it should be."""
    file = folder / PROGRESS_FILE
    if not file.is_file():
        return 0, {}
    saved = read_json(file)
    batches, rows = saved["batches"], saved["rows"]
    for spec in header.specs.values():
        written = spec.file(folder)
        expected = len(spec.header) + rows.get(spec.name, 0) * spec.row_bytes
        if not written.is_file() or written.stat().st_size < expected:
            return 0, {}
    return batches, rows


def ask(
    teacher: LiveTeacher,
    examples: Examples,
    header: CacheHeader,
    batch_size: int,
    accelerator: Accelerator,
    context: StepContext,
) -> None:
    """Fill the files of a cache and put them into the step's folder.

    Raises:
        StoppedError: the process was asked to stop; what is written is kept.
        NonFiniteError: an answer is NaN or infinite.
        ResourceError: the disk is full.
    """
    batches = batches_in_order(examples, batch_size)
    title = f"{context.name}: asking the teacher"
    with (
        _Writing(header, context.scratch) as writing,
        context.progress.task(title, len(batches)) as task,
    ):
        task.skip(writing.batches)
        while writing.batches < len(batches):
            if context.should_stop():
                writing.save()
                raise StoppedError(
                    f"{context.name} stopped after batch {writing.batches} of {len(batches)}; its "
                    "answers are kept, and `attar resume` (or the same command again) goes on"
                )
            rows = batches[writing.batches]
            inputs, targets = examples.batch(rows, accelerator.device)
            with accelerator.autocast():
                outputs = teacher(inputs, rows)
            writing.append(outputs, targets, rows)
            task.advance()
        writing.finish(context.folder)


def _answers(
    key: tuple[str, int] | None, outputs: Outputs, targets: Targets
) -> Iterator[tuple[Tensor, Tensor]]:
    """What a file keeps of a batch, some rows at a time: which example each belongs to, and (n, …).

    Args:
        key: (stack, hidden state), or None for the logits.
    """
    if key is None:
        given, counts = outputs.logits, targets.predicted
    else:
        stack, state = key
        given, counts = outputs.hidden[stack][state], targets.masks[stack]
    index = torch.nonzero(counts, as_tuple=True)
    for part in blocks(len(index[0]), given.shape[-1]):
        places = tuple(axis[part] for axis in index)
        yield places[0], given[places]


def _require_none(bad: Collection[int], key: tuple[str, int] | None) -> None:
    """Refuse answers that are NaN or infinite.

    Args:
        bad: rows with such answers.
    """
    if bad:
        name = "logits" if key is None else f"hidden state {key[1]} of the {key[0]}"
        raise NonFiniteError(
            f"the teacher's {name} of {len(bad)} rows are not finite, train rows "
            f"{', '.join(map(str, sorted(bad)[:SHOWN]))}; nothing can be learned from them: leave "
            'these rows out, or set precision = "fp32"'
        )
