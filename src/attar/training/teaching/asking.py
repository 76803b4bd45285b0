"""Run a teacher on all rows and store its outputs, batch by batch.

Progress is saved every few seconds in the step's scratch folder. After a kill, later output is
truncated and written again with the same result: a batch is a pure function of its number, and so
are the ids sampled from a distribution's tail.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from attar.artifacts import MIB, disk_errors_explained, read_json, write_json
from attar.errors import NonFiniteError, ResourceError, StoppedError
from attar.losses.targets import Outputs, Targets
from attar.numerics.logits import Index, blocks
from attar.numerics.sparse_distributions import summarized, uniforms_of
from attar.step import StepContext
from attar.training.objectives.examples import Examples
from attar.training.teaching.header import CacheHeader, link_or_copy
from attar.training.teaching.live import LiveTeacher
from attar.training.teaching.rows import AskedRows, batches_in_order
from attar.training.teaching.tensor_file import TensorWriter

PROGRESS_FILE = "progress.json"
SAVE_EVERY_S = 5.0
"""Maximum seconds of work to repeat after a kill."""
SHOWN = 5


@dataclass(frozen=True)
class Part:
    """Rows that are processed and stored together."""

    examples: Examples
    rows: AskedRows


def require_disk(header: CacheHeader, context: StepContext) -> None:
    """Raise ResourceError if there is not enough disk space; files of an earlier attempt count as
    free space.
    """
    specs = header.all_specs
    with disk_errors_explained(context.scratch):
        context.scratch.mkdir(parents=True, exist_ok=True)
    files = [spec.file(context.scratch) for spec in specs]
    there = sum(file.stat().st_size for file in files if file.is_file())
    needed = sum(spec.num_bytes for spec in specs) - there
    free = shutil.disk_usage(context.scratch).free
    if needed > free:
        sizes = Counter[str]()
        for spec in specs:
            sizes[spec.name.rpartition("-")[0]] += spec.num_bytes
        parts = ", ".join(f"{name} {size / MIB:.1f}" for name, size in sizes.items())
        is_dense = header.logits is not None and header.sparse is None and header.per_token
        fewer = "set distribution = { exact = 32, tail_draws = 8 }, " if is_dense else ""
        raise ResourceError(
            f"{context.name}: the cache needs {needed / MIB:.1f} MiB (MiB: {parts}), "
            f"{free / MIB:.1f} MiB are free below {context.scratch}; {fewer}keep fewer "
            'hidden_states, lower train_rows, use dtype = "bf16", or choose another folder with '
            "--out"
        )


@dataclass
class _Done:
    """Progress of a cache. After a kill, the last saved state is used."""

    part: int = 0
    batches: int = 0
    """Number of batches of this part; all earlier parts are complete."""
    rows: dict[str, int] = field(default_factory=dict[str, int])
    """File of this part → number of rows."""
    exact_mass: float = 0.0
    """Sum over all predictions."""

    @classmethod
    def read(cls, header: CacheHeader, folder: Path) -> _Done:
        """The progress saved by an earlier attempt; empty if a file is shorter than recorded."""
        file = folder / PROGRESS_FILE
        if not file.is_file():
            return cls()
        done = cls(**read_json(file))
        for number in range(done.part + 1):
            for spec in header.specs(number).values():
                rows = spec.rows if number < done.part else done.rows.get(spec.name, 0)
                written, expected = spec.file(folder), len(spec.header) + rows * spec.row_bytes
                if not written.is_file() or written.stat().st_size < expected:
                    return cls()
        return done


class _Writing:
    """The open files of a part; what has been saved survives a kill."""

    def __init__(self, header: CacheHeader, part: Part, folder: Path, done: _Done) -> None:
        self._header, self._part, self._folder, self.done = header, part, folder, done
        self._specs = header.specs(done.part)
        self._writers = {
            key: TensorWriter(spec, folder, done.rows.get(spec.name, 0))
            for key, spec in self._specs.items()
        }
        self._saved_at = time.monotonic()

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def append(self, outputs: Outputs, targets: Targets, rows: np.ndarray) -> None:
        """Append the outputs of the next batch.

        Args:
            rows: their numbers in the part.

        Raises:
            NonFiniteError: an output is NaN or infinite; the batch then does not count as written.
        """
        for key, writer in self._writers.items():
            bad: set[int] = set()
            for places, answers in _answers(key, outputs, targets):
                owners = rows[places[0].cpu().numpy()]
                finite = answers.isfinite().all(dim=-1).cpu().numpy()
                bad.update(owners[~finite].tolist())
                is_packed = key is None and self._header.sparse is not None and finite.all()
                writer.append(self._packed(answers, owners, places[1]) if is_packed else answers)
            _require_none(bad, key, self._header.precision)
        self.done.batches += 1
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self.save()

    def _packed(self, logits: Tensor, owners: np.ndarray, tokens: Tensor) -> Tensor:
        """Compressed distributions, as bytes."""
        codec = self._header.codec
        assert codec is not None
        keys = self._part.rows.fingerprints[owners]
        uniforms = uniforms_of(self._header.seed, keys, tokens.cpu().numpy(), codec.draws)
        records = summarized(logits, codec.exact, uniforms)
        self.done.exact_mass += float((1 - records.tail).sum(dtype=np.float64))
        return torch.from_numpy(codec.encode(records))

    def save(self) -> None:
        for writer in self._writers.values():
            writer.sync()
        self.done.rows = {spec.name: self._writers[key].rows for key, spec in self._specs.items()}
        write_json(self._folder / PROGRESS_FILE, asdict(self.done))
        self._saved_at = time.monotonic()


def ask(
    teacher: LiveTeacher,
    parts: Sequence[Part],
    header: CacheHeader,
    batch_size: int,
    accelerator: Accelerator,
    context: StepContext,
) -> float:
    """Fill the files of a cache and put them into the step's folder. Files in scratch are kept
    until the step is published, so that a kill before that loses nothing.

    Returns:
        Probability mass of the ids that are stored exactly, summed over all predictions.

    Raises:
        StoppedError: a stop was requested; what has been written is kept.
        NonFiniteError: an output is NaN or infinite.
        ResourceError: the disk is full.
    """
    done = _Done.read(header, context.scratch)
    batches = [-(-len(part.rows) // batch_size) for part in parts]
    title = f"{context.name}: running the teacher"
    with context.progress.task(title, sum(batches)) as task:
        task.skip(sum(batches[: done.part]) + done.batches)
        while True:
            part = parts[done.part]
            with _Writing(header, part, context.scratch, done) as writing:
                for rows in batches_in_order(part.examples, batch_size)[done.batches :]:
                    if context.should_stop():
                        writing.save()
                        at = sum(batches[: done.part]) + done.batches
                        raise StoppedError(
                            f"{context.name} stopped after batch {at} of {sum(batches)}; its "
                            "outputs are saved; continue with `attar resume` or the same command"
                        )
                    inputs, targets = part.examples.batch(rows, accelerator.device)
                    with accelerator.autocast():
                        outputs = teacher(inputs, rows)
                    writing.append(outputs, targets, rows)
                    task.advance()
                writing.save()
            if done.part + 1 == len(parts):
                break
            done.part, done.batches, done.rows = done.part + 1, 0, {}
    for number, part in enumerate(parts):
        part.rows.write(context.folder, number)
        for spec in header.specs(number).values():
            link_or_copy(spec.file(context.scratch), spec.file(context.folder))
    return done.exact_mass


def _answers(
    key: tuple[str, int] | None, outputs: Outputs, targets: Targets
) -> Iterator[tuple[Index, Tensor]]:
    """The part of a batch's outputs that a file stores, a few rows at a time: positions, and values
    (n, …).

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
        yield places, given[places]


NEXT_STEP = {
    "bf16": 'set precision = "fp32"',
    "fp32": "use another teacher: in float32 its weights are damaged, or its training diverged",
}
"""Precision of the forward pass → further advice."""


def _require_none(bad: Collection[int], key: tuple[str, int] | None, precision: str) -> None:
    """Raise if outputs are NaN or infinite.

    Args:
        bad: rows with such outputs.
        precision: of the forward pass.
    """
    if bad:
        name = "logits" if key is None else f"hidden state {key[1]} of the {key[0]}"
        raise NonFiniteError(
            f"the teacher's {name} of {len(bad)} rows are not finite, train rows "
            f"{', '.join(map(str, sorted(bad)[:SHOWN]))}; remove these rows, or "
            f"{NEXT_STEP[precision]}"
        )
