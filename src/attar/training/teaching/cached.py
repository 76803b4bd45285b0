"""A cached teacher: its outputs are read from a cache, by the fingerprints of rows.

The problem: a student may read other rows than the cache has, or in another order, and would
silently get wrong targets. The idea: look up a row by its content, and check before the first step
that

    content   every training row is in the cache, truncated alike; weights and tokenizer are those
              of the teacher in the cache
    answers   the live teacher's outputs on a few random rows equal the stored ones

A difference is an error that states the numbers. A cache may have more rows than a training run
reads: that of a whole corpus serves every selection from it. The live teacher is released at the
first batch. Only the rows of a batch are read; they are returned in float32.

Positions after a row's last token repeat its state, and no loss uses them. Losses on padding,
attention scores or relations are rejected.

Memory: 16 bytes per row of the cache during the lookup, then 8 bytes per training row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ArtifactError, DataError, ModelError
from attar.losses.targets import Outputs
from attar.losses.term import Needs
from attar.models.load import LoadedModel
from attar.special_tokens import open_tokenizer, tokenizer_digest
from attar.tasks.task import Task
from attar.training.teaching.header import CacheHeader, weights_hash
from attar.training.teaching.live import LiveTeacher, load_live
from attar.training.teaching.rows import fingerprints_of
from attar.training.teaching.spot_check import require_same_answers
from attar.training.teaching.stored import (
    Group,
    OpenPart,
    PredictionPlaces,
    StoredDistributions,
    StoredLogits,
    in_order,
    token_places,
)
from attar.training.teaching.teacher_inputs import TeacherInputs

SURVEY_BATCH = 256
SHOWN = 5
OPEN_PARTS = 16
"""Number of parts whose files stay open: pages read from an open file count as memory of this
process."""


class CachedTeacher:
    """Outputs by row number, after `prepare` has checked them.

    Args:
        folder: of the cache.
        live: the teacher that computed the outputs; released at the first batch after `prepare`.
    """

    def __init__(self, folder: Path, header: CacheHeader, live: LiveTeacher) -> None:
        self.folder, self.header = folder, header
        self.input_names, self.columns = live.input_names, live.columns
        self._live: LiveTeacher | None = live
        self._begins = np.cumsum([0, *(part.rows for part in header.parts)])
        self._open = lru_cache(maxsize=OPEN_PARTS)(lambda part: OpenPart.of(folder, header, part))
        self._where = np.zeros(0, np.int64)
        """For each training row, its row in the cache, over all parts."""
        self._wanted: Mapping[str, tuple[int, ...]] = {}
        self._is_ready = False
        self._needs = live.needs

    @property
    def loaded(self) -> LoadedModel:
        """The live teacher, before it is released."""
        assert self._live is not None, "the live teacher was let go"
        return self._live.loaded

    @property
    def model(self) -> PreTrainedModel:
        return self.loaded.model

    def prepare(self, wanted: TeacherInputs) -> None:
        """Check that the cache belongs to this teacher and has the rows and outputs of this
        training run.

        Raises:
            ModelError: a loss needs outputs that are not in the cache.
            DataError: the rows differ.
            ArtifactError: the stored outputs are not the teacher's.
        """
        self._wanted = wanted.loss.taught_states
        content, columns = self.header.content, self.header.logits
        try:
            content.require(wanted.loss, str(self.folder))
            content.require_columns(self.columns or columns, columns, str(self.folder))
        except ModelError as error:
            raise ModelError(f"{wanted.step}: {error}") from error
        self._require_teacher()
        self._where = self._found(wanted)
        assert self._live is not None
        self._live.columns = self.columns  # a student may have a smaller vocabulary
        require_same_answers(self._live, self, self.header, wanted)
        kept = content.said()
        wanted.progress.say(
            f"  {wanted.step}: the teacher's outputs are read from {self.folder} ({kept})"
        )
        self._is_ready = True

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor], rows: np.ndarray | None = None) -> Outputs:
        """The teacher's outputs for these rows, padded like this batch, in float32."""
        assert rows is not None, "a cached teacher finds its answers by row"
        if self._is_ready:
            self._live = None  # only needed for the check and for measurements before training
        device, groups = inputs["input_ids"].device, list(self._groups(rows))
        hidden = {
            stack: self._states(stack, states, groups, device)
            for stack, states in self._wanted.items()
        }
        nothing = torch.zeros(len(rows), 0, device=device)
        if not self._needs.teacher_logits:
            return Outputs(nothing, hidden)
        if not self.header.per_token:
            answers = in_order(groups, [group.answers_of_rows for group in groups])
            return Outputs(answers.to(device), hidden)
        places = PredictionPlaces.of(groups, (len(rows), _width(inputs)))
        if self.header.codec is not None:
            found = StoredDistributions(self.folder, self.header, groups, places, device)
            return Outputs(nothing, hidden, sparse=found)
        return Outputs(StoredLogits(groups, places, self.columns, device), hidden)

    def _groups(self, rows: np.ndarray) -> Iterator[Group]:
        where = self._where[rows]
        parts = np.searchsorted(self._begins, where, side="right") - 1
        for part in np.unique(parts).tolist():
            members = np.flatnonzero(parts == part)
            yield Group(self._open(part), members, where[members] - self._begins[part])

    def _states(
        self, stack: str, states: tuple[int, ...], groups: Sequence[Group], device: torch.device
    ) -> tuple[Tensor, ...]:
        """All hidden states of a stack by index; unused ones are empty."""
        width = max(int(group.tokens(stack).counts[group.rows].max()) for group in groups)
        places = [token_places(group.tokens(stack), group.rows, width) for group in groups]
        found = [torch.empty(0, device=device)] * (self.header.stacks[stack].num_blocks + 1)
        for state in states:
            read = [
                group.part.files[stack, state].index_select(0, at.flatten()).view(*at.shape, -1)
                for group, at in zip(groups, places, strict=True)
            ]
            found[state] = in_order(groups, read).to(device, torch.float32)
        return tuple(found)

    def _require_teacher(self) -> None:
        """Raise if the cache was made with another model."""
        header, model = self.header, self.folder / "model"
        tokenizer = tokenizer_digest(open_tokenizer(model))
        hashes = {
            "weights": (weights_hash(model), header.weights),
            "tokenizer": (tokenizer, header.tokenizer),
        }
        for what, (now, then) in hashes.items():
            if now != then:
                raise ArtifactError(
                    f"the teacher in {model} is not the teacher of the cache (its {what} has the "
                    f"hash {now[:SHOWN]}…, then {then[:SHOWN]}…); run the cache step again"
                )

    def _found(self, wanted: TeacherInputs) -> np.ndarray:
        """Index in the cache of each training row."""
        header = self.header
        cache = f"{wanted.step}: the cache {self.folder} was made of {header.rows:,} rows of data"
        if header.max_length != wanted.max_length:
            raise DataError(
                f"{cache} {header.data!r} truncated at max_length = {header.max_length}, this step "
                f"at {wanted.max_length}; set both to the same value"
            )
        given = fingerprints_of(wanted.train, SURVEY_BATCH, self.input_names)
        parts = range(len(header.parts))
        own = np.concatenate([self._open(part).rows.fingerprints for part in parts])
        order = np.argsort(own, kind="stable")
        places = np.searchsorted(own[order], given)
        where = order[np.minimum(places, len(own) - 1)]
        missing = np.flatnonzero(own[where] != given)
        if len(missing):
            named = ", ".join(map(str, missing[:SHOWN])) + (", …" if len(missing) > SHOWN else "")
            raise DataError(
                f"{cache} {header.data!r}, and {len(missing):,} of the {len(given):,} rows that "
                f"this step reads are not among them (rows {named}). {_cause(header, wanted.seed)}"
            )
        return where


def load_cached(folder: Path, task: Task, *, needs: Needs, seed: int) -> CachedTeacher:
    """Open a cache, and the teacher in it.

    Raises:
        ModelError: a loss needs outputs that caches do not store; otherwise as for a live teacher.
        ArtifactError: the cache is damaged.
    """
    if needs.rollouts:
        raise ModelError(
            "policy_gradient needs the teacher on continuations that are sampled in every step, "
            f"but the cache {folder} only covers the training rows; name the teacher itself as "
            "teacher"
        )
    if needs.scores or needs.qkv:
        what = " and ".join(
            name
            for name, asked in (("attention scores", needs.scores), ("relations", needs.qkv))
            if asked
        )
        raise ModelError(
            f"a loss compares {what}, which the cache {folder} does not store, because they grow "
            "with the square of the text length; name the teacher itself as teacher, or remove "
            "that loss"
        )
    header = CacheHeader.read(folder)
    return CachedTeacher(folder, header, load_live(folder / "model", task, needs=needs, seed=seed))


def _width(inputs: Mapping[str, Tensor]) -> int:
    """Width, including padding, of the stack that makes the predictions."""
    return inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]


def _cause(header: CacheHeader, seed: int) -> str:
    if header.seed != seed:
        return (
            f"The cache drew its rows with seed {header.seed}, this step with seed {seed}: set "
            f"data.{header.data}.rows_seed = {header.seed}, so that every seed reads the same rows"
        )
    return (
        "Give both steps the same data, objective and template, or the cache step data with all of "
        "these rows; then run it again"
    )
