"""A teacher that remembers: its answers are read from a cache by row number.

The problem: an answer is found by its row's number, so a student that reads other rows than the
cache was made of would be taught nonsense without a word. The idea: before the first step

    content   fingerprints of all rows, the cut, the weights of the teacher in the cache
    answers   the live teacher is asked about a few random rows and must say what is stored

and a difference is refused with its row, hidden state and size. With the first batch the live
teacher is let go. Only the rows of a batch are ever read; they are returned in float32.

What stands behind a row's last token repeats that token's state: no loss looks there. Losses that
ask for padding, attention scores or relations are refused.

Live and stored answers differ by rounding: of the storage, and of sums that another padding takes
in another order. Anything beyond is another teacher, another row, or a damaged file.

    difference = ‖stored − live‖ / ‖live‖, over the real tokens of a row
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ArtifactError, DataError, ModelError
from attar.losses.targets import Outputs
from attar.losses.term import Needs
from attar.models.load import LoadedModel
from attar.numerics.logits import Index, LazyLogits, Logits
from attar.seeds import generator
from attar.tasks.task import Task
from attar.training.teaching.header import CacheHeader, weights_hash
from attar.training.teaching.live import LiveTeacher, load_live
from attar.training.teaching.rows import AskedRows, Ragged, survey
from attar.training.teaching.teacher_inputs import TeacherInputs
from attar.training.teaching.tensor_file import read_tensor

SURVEY_BATCH = 256
SHOWN = 5


class CachedTeacher:
    """Answers by row number, once `prepare` has found that it may.

    Args:
        folder: the cache.
        live: the teacher whose answers these are; let go with the first batch after `prepare`.
    """

    def __init__(self, folder: Path, header: CacheHeader, live: LiveTeacher) -> None:
        self.folder, self.header = folder, header
        self.input_names, self.columns = live.input_names, live.columns
        self._live: LiveTeacher | None = live
        self._rows = AskedRows.read(folder, tuple(header.stacks), per_token=header.per_token)
        self._files = {key: read_tensor(s.file(folder)) for key, s in header.specs.items()}
        self._wanted: Mapping[str, tuple[int, ...]] = {}
        self._is_ready = False
        self._needs = live.needs

    @property
    def loaded(self) -> LoadedModel:
        """The live teacher, before it is let go."""
        assert self._live is not None, "the live teacher was let go"
        return self._live.loaded

    @property
    def model(self) -> PreTrainedModel:
        return self.loaded.model

    def prepare(self, wanted: TeacherInputs) -> None:
        """Find out whether these answers are about the rows of this training, and the teacher's.

        Raises:
            ModelError: a loss needs what is not in the cache.
            DataError: the rows are other ones.
            ArtifactError: the stored answers are not the teacher's.
        """
        self._wanted = wanted.states
        try:
            self.header.content.require(wanted.loss, str(self.folder))
        except ModelError as error:
            raise ModelError(f"{wanted.step}: {error}") from error
        self._require_rows(wanted)
        assert self._live is not None
        require_same_answers(self._live, self, self.header.precision, self.header.dtype, wanted)
        kept = self.header.content.said()
        wanted.progress.say(
            f"  {wanted.step}: the teacher's answers come from {self.folder} ({kept})"
        )
        self._is_ready = True

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor], rows: np.ndarray | None = None) -> Outputs:
        """What the teacher said of these rows, padded as this batch is, in float32."""
        assert rows is not None, "a cached teacher finds its answers by row"
        if self._is_ready:
            self._live = None  # it was needed for the check, and for what a loss asks beforehand
        first = inputs["input_ids"]
        hidden = {
            stack: self._states(stack, states, rows, first.device)
            for stack, states in self._wanted.items()
        }
        if not self._needs.teacher_logits:
            return Outputs(torch.zeros(len(rows), 0, device=first.device), hidden=hidden)
        return Outputs(self._logits(rows, _width(inputs), first.device), hidden=hidden)

    def _states(
        self, stack: str, states: tuple[int, ...], rows: np.ndarray, device: torch.device
    ) -> tuple[Tensor, ...]:
        """All of a stack's states by number; those that nobody asks for are empty."""
        kept = self.header.stacks[stack]
        places = _places(self._rows.tokens[stack], rows)
        found = [torch.empty(0, device=device)] * (kept.num_blocks + 1)
        for state in states:
            picked = self._files[stack, state].index_select(0, places.flatten()).to(device).float()
            found[state] = picked.view(*places.shape, kept.hidden_size)
        return tuple(found)

    def _logits(self, rows: np.ndarray, width: int, device: torch.device) -> Logits:
        file = self._files[None]
        if not self.header.per_token:
            starts = torch.from_numpy(self._rows.predictions.starts[rows])
            return file.index_select(0, starts).to(device)
        columns = file.shape[1] if self.columns is None else self.columns
        return _StoredLogits(file, self._rows, rows, (len(rows), width, columns), device)

    def _require_rows(self, wanted: TeacherInputs) -> None:
        """Refuse rows the teacher was not asked about."""
        header, own = self.header, self._rows
        if weights_hash(self.folder / "model") != header.weights:
            raise ArtifactError(
                f"the teacher in {self.folder / 'model'} is not the one whose answers the cache "
                "holds (its weights have another sha256); run the cache step again"
            )
        made = f"{wanted.step}: the cache {self.folder} was made of {header.rows} rows of data"
        if header.max_length != wanted.max_length:
            raise DataError(
                f"{made} {header.data!r} cut at max_length = {header.max_length}, this step cuts "
                f"at {wanted.max_length}; set one of them"
            )
        given = survey(wanted.train, SURVEY_BATCH, self.input_names)
        if len(given) == len(own) and np.array_equal(given.fingerprints, own.fingerprints):
            return
        raise DataError(
            f"{made} {header.data!r}, this step reads {len(given)}: "
            f"{_difference(given.fingerprints, own.fingerprints)}. {_cause(header, wanted.seed)}"
        )


def load_cached(folder: Path, task: Task, *, needs: Needs, seed: int) -> CachedTeacher:
    """Open a cache and the teacher in it.

    Raises:
        ModelError: a loss asks for what no cache has; the rest as for a live teacher.
        ArtifactError: the cache is damaged.
    """
    if needs.scores or needs.qkv:
        what = " and ".join(
            name
            for name, asked in (("attention scores", needs.scores), ("relations", needs.qkv))
            if asked
        )
        raise ModelError(
            f"a loss compares {what}, which the cache {folder} does not keep: they grow with the "
            "square of a text's length, and reading them takes longer than computing them; name "
            "the teacher itself as teacher, or leave that loss out"
        )
    header = CacheHeader.read(folder)
    return CachedTeacher(folder, header, load_live(folder / "model", task, needs=needs, seed=seed))


class _StoredLogits(LazyLogits):
    """Logits of tokens, read from a cache's file when they are asked for."""

    dtype = torch.float32

    def __init__(
        self,
        file: Tensor,
        asked: AskedRows,
        rows: np.ndarray,
        shape: tuple[int, int, int],
        device: torch.device,
    ) -> None:
        self._file, self._device, self.shape = file, device, shape
        self._stored = torch.full(shape[:2], -1)
        """Of each token, its row in the file."""
        for b, row in enumerate(rows):
            start = int(asked.predictions.starts[row])
            count = int(asked.predictions.counts[row])
            positions = torch.from_numpy(asked.positions[start : start + count]).long()
            self._stored[b, positions] = torch.arange(start, start + count)

    def __getitem__(self, index: Index) -> Tensor:
        places = self._stored[tuple(axis.cpu() for axis in index)]
        return self._file.index_select(0, places)[:, : self.shape[-1]].to(self._device)


def _places(ragged: Ragged, rows: np.ndarray) -> Tensor:
    """Where each token of a batch lies, (B, T); behind a row's end its last token again."""
    counts = ragged.counts[rows]
    steps = np.minimum(np.arange(counts.max(initial=1)), counts[:, None] - 1)
    return torch.from_numpy(ragged.starts[rows][:, None] + steps)


def _width(inputs: Mapping[str, Tensor]) -> int:
    """Tokens, padding included, of the stack that predicts."""
    return inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]


def _difference(given: np.ndarray, stored: np.ndarray) -> str:
    """How two sets of rows differ, by their fingerprints."""
    count = min(len(given), len(stored))
    other = np.flatnonzero(given[:count] != stored[:count])
    if len(other) == 0:
        return f"the first {count} are the same"
    shared = len(np.intersect1d(given, stored))
    named = ", ".join(map(str, other[:SHOWN])) + (", …" if len(other) > SHOWN else "")
    return f"{len(other)} of the first {count} differ (rows {named}), {shared} are in both"


def _cause(header: CacheHeader, seed: int) -> str:
    if header.seed != seed:
        return (
            f"The cache drew its rows with seed {header.seed}, this step with seed {seed}: set "
            f"data.{header.data}.rows_seed = {header.seed}, so that every seed reads the same rows"
        )
    return "Give both steps the same data, objective and template, or run the cache step again"


ROWS_ASKED = 8
LIMITS = {"fp32": 1e-4, "bf16": 0.1}
"""Largest difference by what the teacher computes in: float32 sums of hundreds of terms in another
order differ by 1e-6; in bf16, six blocks of MiniLM by 0.008 and an untrained head by 0.013. Another
row or another model differs by about 1."""
BF16_STEP = 2.0**-8
"""Largest relative rounding error of one bf16 number."""


def require_same_answers(
    live: LiveTeacher, stored: CachedTeacher, precision: str, dtype: str, wanted: TeacherInputs
) -> None:
    """Ask both about random rows, the same ones for the same seed.

    Args:
        precision: what the stored answers were computed in.
        dtype: what hidden states are stored in.
    Raises:
        ArtifactError: with the row, the hidden state and the size of the difference.
    """
    count = min(ROWS_ASKED, len(wanted.train))
    draw = generator(wanted.seed, "cache check")
    rows = np.sort(draw.choice(len(wanted.train), count, replace=False))
    inputs, targets = wanted.train.batch(rows, wanted.device)
    is_bf16 = precision == "bf16"
    with torch.autocast(wanted.device.type, torch.bfloat16, enabled=is_bf16):
        now = live(inputs, rows)
    then, predicted = stored(inputs, rows), targets.predicted
    limit = LIMITS[precision]
    if live.needs.teacher_logits:
        _require_near(rows, "the logits", now.logits, then.logits, predicted, limit)
    for stack, states in wanted.states.items():
        for state in states:
            pair = now.hidden[stack][state], then.hidden[stack][state]
            allowed = limit + (BF16_STEP if dtype == "bf16" else 0)
            name = f"hidden state {state} of the {stack}"
            _require_near(rows, name, *pair, targets.masks[stack].bool(), allowed)


def _require_near(
    rows: np.ndarray, name: str, live: Logits, stored: Logits, counts: Tensor, limit: float
) -> None:
    for row, difference in _differences(rows, live, stored, counts):
        if not difference <= limit:  # NaN is no small difference
            raise ArtifactError(
                f"the cache is not of this teacher: train row {row}, {name}: the stored answer "
                f"differs from the live one by {difference:.2g} of its length, rounding allows "
                f"{limit:.2g}; run the cache step again"
            )


def _differences(
    rows: np.ndarray, live: Logits, stored: Logits, counts: Tensor
) -> Iterator[tuple[int, float]]:
    """Relative difference of each row; of an answer near zero relative to the usual one."""
    index = torch.nonzero(counts, as_tuple=True)
    apart: list[float] = []
    sizes: list[float] = []
    of_tokens: list[Tensor] = []
    for b in range(len(rows)):  # a row at a time: whole logits would not fit
        places = tuple(axis[index[0] == b] for axis in index)
        one, other = live[places], stored[places]
        apart.append(float((one - other).norm()))
        sizes.append(float(one.norm()))
        of_tokens.append(one.norm(dim=-1))
    norms = torch.cat(of_tokens)
    usual = float(norms.median()) if len(norms) else 0.0
    for row, difference, size in zip(rows, apart, sizes, strict=True):
        yield int(row), difference / max(size, usual, torch.finfo(torch.float32).tiny)
