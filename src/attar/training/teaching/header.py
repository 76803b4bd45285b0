"""`cache.json`: what a cache holds and what it was made of.

<cache>/  cache.json  rows.safetensors  logits.safetensors  hidden-<stack>-<state>.safetensors
model/                       the teacher itself, hard-linked: it costs no bytes, and a cache
                             can always be compared with the model whose answers it holds
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from attar.artifacts import disk_errors_explained, key_of, read_json, sha256_of, write_json
from attar.config import Config
from attar.errors import ArtifactError, ModelError
from attar.losses.total import TotalLoss
from attar.models.sources.safe_files import (
    CONFIG_FILE,
    GENERATION_FILE,
    INDEX_FILE,
    TOKENIZER_FILES,
    read_model_files,
)
from attar.tasks.task import TASK_FILE
from attar.training.teaching.teacher_inputs import states_of
from attar.training.teaching.tensor_file import TensorSpec

CACHE_FILE = "cache.json"
SIDECARS = (CONFIG_FILE, TASK_FILE, INDEX_FILE, GENERATION_FILE, *TOKENIZER_FILES)


@dataclass(frozen=True)
class Content:
    """Which answers a cache has, or will have."""

    logits: bool
    states: Mapping[str, tuple[int, ...]]
    """Stack → numbers of its hidden states."""

    def said(self) -> str:
        """In words."""
        parts = ["logits"] if self.logits else []
        parts += [
            f"hidden states {list(s)} of the {stack}" for stack, s in self.states.items() if s
        ]
        return " and ".join(parts)

    def require(self, loss: TotalLoss, cache: str) -> None:
        """Refuse a loss that compares with what is not kept.

        Args:
            cache: what it is called, for the message.
        Raises:
            ModelError: with what is missing, and the settings that keep it.
        """
        wanted, needs = states_of(loss), loss.needs
        missing = [
            f"hidden state {state} of the {stack}"
            for stack, states in wanted.items()
            for state in states
            if state not in self.states[stack]
        ]
        if needs.teacher_logits and not self.logits:
            missing.append("logits")
        if missing:
            every = {stack: list(states) for stack, states in wanted.items()}
            listed = next(iter(every.values())) if len(every) == 1 else every
            settings = [f"hidden_states = {listed}"] if every else []
            settings += ["logits = true"] if needs.teacher_logits else []
            raise ModelError(
                f"the losses need {', '.join(missing)}, the cache {cache} has {self.said()}; set "
                f"{' and '.join(settings)} in the cache step, or name the teacher itself"
            )
        for name, term in loss.terms.items():
            if getattr(term, "count_padding", False):
                raise ModelError(
                    f"{name} counts padding, of which a cache keeps nothing; set count_padding = "
                    "false, or name the teacher itself"
                )


class KeptStates(Config):
    """The hidden states of one stack."""

    states: tuple[int, ...]
    """0 is the embedding output."""
    num_blocks: int
    hidden_size: int
    tokens: int
    """Of all rows together."""


class CacheHeader(Config):
    """What there is, and of what."""

    version: Literal[1] = 1
    teacher: str
    """The word it was called by."""
    weights: str
    """A hash of its weights' bytes."""
    data: str
    rows: int
    seed: int
    """What `train_rows` was drawn with."""
    max_length: int
    precision: Literal["bf16", "fp32"]
    """What the teacher computed in."""
    dtype: Literal["bf16", "fp32"]
    """Of the stored hidden states."""
    logits: int | None
    """Columns; None: no logits."""
    per_token: bool
    """A prediction is a labelled token, and not a row."""
    predictions: int
    """Rows of the logits."""
    stacks: dict[str, KeptStates]
    """The stacks the rows are read by; those without kept states too."""

    def write(self, folder: Path) -> None:
        write_json(folder / CACHE_FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> CacheHeader:
        """Raises: ArtifactError: damaged, or of another version."""
        try:
            return cls.model_validate(read_json(folder / CACHE_FILE))
        except ValidationError as error:
            raise ArtifactError(
                f"{folder / CACHE_FILE} is not a cache of this version of attar "
                f"({error.errors()[0]['msg']}); remove its folder and run the cache step again"
            ) from error

    @property
    def specs(self) -> dict[tuple[str, int] | None, TensorSpec]:
        """(stack, state), or None for the logits, → its file."""
        found: dict[tuple[str, int] | None, TensorSpec] = {}
        if self.logits is not None:
            found[None] = TensorSpec("logits", self.predictions, self.logits, "fp32")
        for stack, kept in self.stacks.items():
            for state in kept.states:
                name = f"hidden-{stack}-{state:03d}"
                found[stack, state] = TensorSpec(name, kept.tokens, kept.hidden_size, self.dtype)
        return found

    @property
    def content(self) -> Content:
        """Which answers there are."""
        states = {stack: kept.states for stack, kept in self.stacks.items()}
        return Content(self.logits is not None, states)


def is_cached(model_folder: Path) -> bool:
    """Whether a model folder is the one inside a cache."""
    return (model_folder.parent / CACHE_FILE).is_file()


def weights_hash(model_folder: Path) -> str:
    """A hash of the bytes of a model's weights."""
    files = read_model_files(model_folder).weights
    return key_of({file.name: sha256_of(file) for file in files})


def link_model(source: Path, target: Path) -> None:
    """The model's files under another name: hard links, or copies on another file system."""
    target.mkdir(parents=True, exist_ok=True)
    sidecars = [source / name for name in SIDECARS if (source / name).is_file()]
    for file in (*sidecars, *read_model_files(source).weights):
        link_or_copy(file, target / file.name)


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name.

    Raises:
        ResourceError: it must be copied, and the disk is full.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        with disk_errors_explained(target.parent, source.stat().st_size):
            shutil.copyfile(source, target)
