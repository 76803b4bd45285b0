"""The base class of loss terms: a term compares outputs of student and teacher, and states the unit
that it counts in.

A term is a module, because some have parameters (a projection between widths) or buffers (running
statistics); these are trained, saved and resumed with the student, but are not part of the
artifact. To add a term: its file in `losses/`, a member of the union in `losses/config`, a card in
docs/methods, and tests of its laws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from attar.errors import ModelError
from attar.losses.targets import Outputs, Targets, Unit
from attar.numerics.logits import Taught


@dataclass(frozen=True)
class StackShape:
    """Shape of one stack of blocks."""

    num_blocks: int
    hidden_size: int
    heads: int
    head_size: int
    kv_heads: int | None = None
    """Number of heads of keys and values; None: the same as for queries."""
    is_causal: bool = False
    """Whether a token attends only to itself and earlier tokens."""

    @property
    def heads_of(self) -> Mapping[str, int]:
        """Numbers of heads of queries, keys and values."""
        shared = self.heads if self.kv_heads is None else self.kv_heads
        return {"query": self.heads, "key": shared, "value": shared}


Shape = Mapping[str, StackShape]
"""Stack ("encoder", "decoder") → its shape, in the order of execution."""


@dataclass(frozen=True)
class Pair:
    """Shapes of a student and its teacher."""

    student: Shape
    teacher: Shape
    seed: int = 0
    """Seed for the initial weights of learned projections."""

    def stacks(self, kind: str) -> tuple[str, ...]:
        """The stacks that both models have.

        Args:
            kind: of the loss, for the message.
        Raises:
            ModelError: one is an encoder-decoder and the other is not, or they share no stack.
        """
        if set(self.student) != set(self.teacher):
            raise ModelError(
                f"{kind}: the student has the stacks {list(self.student)}, the teacher "
                f"{list(self.teacher)}; what is inside is compared stack by stack, so use a "
                "student of the teacher's kind, or a loss on predictions such as forward_kl"
            )
        return tuple(self.student)


@dataclass(frozen=True)
class Needs:
    """What a term needs from both models besides the student's logits."""

    teacher_logits: bool = False
    hidden: bool = False
    scores: bool = False
    qkv: bool = False
    gradients: bool = False
    """Sensitivity of the teacher's prediction to its hidden states, measured before the first step.
    """
    rollouts: bool = False
    """Continuations sampled in every step, which a cache cannot contain."""
    whole_vectors: bool = False
    """Vectors of all texts of the batch from student and teacher, in addition to the micro-batch's
    own."""
    whole_batch: bool = False
    """Whether `look_at` must get the teacher's outputs for the whole batch before the first
    micro-batch."""

    @property
    def teacher(self) -> bool:
        of_teacher = (field.name for field in fields(self) if field.name != "whole_vectors")
        return any(getattr(self, name) for name in of_teacher)

    @property
    def inside(self) -> bool:
        """Whether a term uses internal states, and so needs the shapes of the models."""
        return self.hidden or self.scores or self.qkv

    def __or__(self, other: Needs) -> Needs:
        names = [field.name for field in fields(self)]
        return Needs(**{name: getattr(self, name) or getattr(other, name) for name in names})


@dataclass(frozen=True)
class Share:
    """Part of a term's value: Σ sums / count(unit)."""

    unit: Unit
    sums: Float[Tensor, " B"]
    """Sum for each example, with gradient."""


class Term(nn.Module):
    """One term of an objective, constructed from (config, objective, shapes of the two models or
    None).
    """

    needs: Needs = Needs()
    """Everything the term may need with any settings."""

    @classmethod
    def needs_for(cls, config: Any) -> Needs:
        """What the term needs with these settings."""
        return cls.needs

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        """The shares of one micro-batch; the term's value is their sum.

        Args:
            teacher: of the same micro-batch; None if `needs` has nothing from it.
        """
        raise NotImplementedError

    def look_at(self, teacher: Sequence[Outputs], targets: Sequence[Targets]) -> None:
        """Receive the teacher's outputs on all micro-batches of a batch; called only if
        `needs.whole_batch`.
        """

    def forget(self) -> None:
        """Undo the last `look_at`, because its step is skipped."""

    def facts(self) -> Mapping[str, float]:
        """Values to log for the last batch, such as an effective number of dimensions."""
        return {}


class PredictionTerm(Term):
    """A term on single predictions, so that logits can be computed for a few rows at a time."""

    unit: Unit = "prediction"

    def rows(self, student: Tensor, teacher: Taught, labels: Any) -> Float[Tensor, " N"]:
        """The loss of each prediction, with gradient.

        Args:
            student: logits (N, C).
            teacher: its logits, or its cached distributions; may be None if the term needs no
                teacher.
            labels: (N,); `SampledTokens` for continuations.
        """
        raise NotImplementedError
