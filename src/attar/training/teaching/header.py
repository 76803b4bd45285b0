"""`cache.json`: the contents of a cache, and what it was made from.

<cache>/  cache.json
rows-<part>.safetensors                      fingerprints of rows, and locations of their outputs
logits-<part>.safetensors                    a row per prediction: all logits, or a byte record
hidden-<stack>-<state>-<part>.safetensors    a row per token
model/                                       the teacher itself, hard-linked: takes no disk space,
                                             and a cache can always be compared with the model
                                             whose outputs it stores

A corpus has one part for each of its shards with rows; other data has one part.
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
from attar.numerics.distribution_codec import BITS, Codec
from attar.tasks.task import TASK_FILE
from attar.training.cache_config import Sparse
from attar.training.teaching.tensor_file import TensorSpec

CACHE_FILE = "cache.json"
SIDECARS = (CONFIG_FILE, TASK_FILE, INDEX_FILE, GENERATION_FILE, *TOKENIZER_FILES)


@dataclass(frozen=True)
class Content:
    """The outputs that a cache has, or will have."""

    logits: bool
    states: Mapping[str, tuple[int, ...]]
    """Stack → indices of its hidden states."""
    sparse: Sparse | None = None
    """How predictions are compressed; None: all logits are stored."""

    def said(self) -> str:
        logits = "logits" if self.sparse is None else self.sparse.said()
        parts = [logits] if self.logits else []
        parts += [
            f"hidden states {list(s)} of the {stack}" for stack, s in self.states.items() if s
        ]
        return " and ".join(parts)

    def require(self, loss: TotalLoss, cache: str) -> None:
        """Raise ModelError if a loss needs outputs that are not stored.

        Args:
            cache: name of the cache, for the message.
        """
        wanted, needs = loss.taught_states, loss.needs
        missing = [
            f"hidden state {state} of the {stack}"
            for stack, states in wanted.items()
            for state in states
            if state not in self.states.get(stack, ())
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
            if self.sparse is not None and term.needs_all_of_p:
                raise ModelError(term.needs_more_than(self.said(), cache, name))
            if getattr(term, "count_padding", False):
                raise ModelError(
                    f"{name} counts padding, which a cache does not store; set count_padding = "
                    "false, or name the teacher itself"
                )

    def require_columns(self, own: int | None, stored: int | None, cache: str) -> None:
        """Raise ModelError if the student's vocabulary is smaller than that of the stored
        distributions.
        """
        if self.sparse is not None and own != stored:
            raise ModelError(
                f"the student has {own} words, the cache {cache} has {self.said()} over {stored}; "
                f'make the student with vocab_size = {stored}, or set distribution = "dense" in '
                "the cache step"
            )


class KeptStates(Config):
    """The stored hidden states of one stack."""

    states: tuple[int, ...]
    """Indices, where 0 is the embedding output."""
    num_blocks: int
    hidden_size: int


class CachedPart(Config):
    """Counts of one part."""

    rows: int
    predictions: int
    tokens: dict[str, int]
    """Stack → number of tokens."""


class CacheHeader(Config):
    """Contents and origin of a cache."""

    version: Literal[2] = 2
    teacher: str
    """The teacher, as written in the recipe."""
    weights: str
    """Hash of its weights' bytes."""
    tokenizer: str
    """Digest of its tokenizer."""
    data: str
    parts: tuple[CachedPart, ...]
    seed: int
    """Seed of `train_rows` and of the ids sampled from tails."""
    max_length: int
    precision: Literal["bf16", "fp32"]
    """Number format of the teacher's computation."""
    dtype: Literal["bf16", "fp32"]
    """Number format of the stored hidden states."""
    logits: int | None
    """Number of logits; None: no predictions are stored."""
    sparse: Sparse | None
    """How distributions are compressed; None: all logits are stored."""
    bits: int = BITS
    """Bits of a stored log-probability, in compressed distributions."""
    per_token: bool
    """Whether there is a prediction per labelled token rather than per row."""
    stacks: dict[str, KeptStates]
    """All stacks that read the rows, including those without stored states."""

    def write(self, folder: Path) -> None:
        write_json(folder / CACHE_FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> CacheHeader:
        """Read the header of a cache.

        Raises:
            ArtifactError: it is damaged, or of another version.
        """
        try:
            return cls.model_validate(read_json(folder / CACHE_FILE))
        except ValidationError as error:
            raise ArtifactError(
                f"{folder / CACHE_FILE} is not a cache of this version of attar "
                f"({error.errors()[0]['msg']}); remove its folder and run the cache step again"
            ) from error

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def predictions(self) -> int:
        """Number of rows of the logits."""
        return sum(part.predictions for part in self.parts)

    @property
    def codec(self) -> Codec | None:
        """The codec of compressed distributions; None: all logits are stored, or none."""
        if self.sparse is None or self.logits is None:
            return None
        return codec_of(self.sparse, self.logits, self.bits)

    @property
    def is_bound(self) -> bool:
        """Whether losses against these distributions are lower bounds."""
        codec = self.codec
        return codec is not None and codec.exact < codec.columns and codec.draws == 0

    def specs(self, number: int) -> dict[tuple[str, int] | None, TensorSpec]:
        """(stack, state), or None for the logits → its file in a part."""
        found: dict[tuple[str, int] | None, TensorSpec] = {}
        part, codec = self.parts[number], self.codec
        if self.logits is not None:
            kind = (self.logits, "fp32") if codec is None else (codec.record_bytes, "u8")
            found[None] = TensorSpec(f"logits-{number:05}", part.predictions, *kind)
        for stack, kept in self.stacks.items():
            for state in kept.states:
                name, tokens = f"hidden-{stack}-{state:03d}-{number:05}", part.tokens[stack]
                found[stack, state] = TensorSpec(name, tokens, kept.hidden_size, self.dtype)
        return found

    @property
    def all_specs(self) -> list[TensorSpec]:
        return [spec for part in range(len(self.parts)) for spec in self.specs(part).values()]

    @property
    def content(self) -> Content:
        states = {stack: kept.states for stack, kept in self.stacks.items()}
        return Content(self.logits is not None, states, self.sparse)


def codec_of(sparse: Sparse, columns: int, bits: int = BITS) -> Codec:
    """The codec for distributions over `columns` tokens; a small vocabulary is stored without a
    tail.
    """
    exact, draws = sparse.codec
    return Codec(columns, min(exact, columns), 0 if exact >= columns else draws, bits)


def is_cached(model_folder: Path) -> bool:
    """Whether a model folder is inside a cache."""
    return (model_folder.parent / CACHE_FILE).is_file()


def weights_hash(model_folder: Path) -> str:
    """Hash of the bytes of a model's weights."""
    files = read_model_files(model_folder).weights
    return key_of({file.name: sha256_of(file) for file in files})


def link_model(source: Path, target: Path) -> None:
    """Hard-link the model's files into another folder, or copy them if it is on another file
    system.
    """
    target.mkdir(parents=True, exist_ok=True)
    sidecars = [source / name for name in SIDECARS if (source / name).is_file()]
    for file in (*sidecars, *read_model_files(source).weights):
        link_or_copy(file, target / file.name)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it.

    Raises:
        ResourceError: it must be copied, and the disk is full.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        with disk_errors_explained(target.parent, source.stat().st_size):
            shutil.copyfile(source, target)
