"""The base class of loss terms: a term compares outputs of student and teacher and says in which
unit it counts.

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
    """One stack of blocks."""

    num_blocks: int
    hidden_size: int
    heads: int
    head_size: int
    kv_heads: int | None = None
    """Heads of keys and values; None: as many as of queries."""
    is_causal: bool = False
    """Causal: a token only attends to itself and the tokens before it."""

    @property
    def heads_of(self) -> Mapping[str, int]:
        """Heads of its queries, keys and values."""
        shared = self.heads if self.kv_heads is None else self.kv_heads
        return {"query": self.heads, "key": shared, "value": shared}


Shape = Mapping[str, StackShape]
"""Stack ("encoder", "decoder") → its shape; in the order in which a token meets them."""


@dataclass(frozen=True)
class Pair:
    """A student and the teacher it is compared with."""

    student: Shape
    teacher: Shape
    seed: int = 0
    """Where the weights of learned projections come from."""

    def stacks(self, kind: str) -> tuple[str, ...]:
        """The stacks both have.

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
    """Continuations sampled in every step, which no cache can cover."""
    whole_vectors: bool = False
    """Vectors of all texts of the batch, student's and teacher's, beside a micro-batch's own."""
    whole_batch: bool = False
    """`look_at` must see the teacher on the whole batch before the first micro-batch."""

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
    """Of each example, with gradient."""


class Term(nn.Module):
    """One summand of an objective, made of (config, objective, the two models' shapes if there is a
    teacher).
    """

    needs: Needs = Needs()
    """Everything it may need."""

    @classmethod
    def needs_for(cls, config: Any) -> Needs:
        """What it needs with these settings."""
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
        """See the teacher on all micro-batches of a batch; only called if `needs` says so."""

    def forget(self) -> None:
        """Undo the last `look_at`: its step is skipped."""

    def facts(self) -> Mapping[str, float]:
        """Figures for the log, as of the last batch, such as an effective number of dimensions."""
        return {}


class PredictionTerm(Term):
    """A term on predictions, row by row, so that logits can be computed for some rows at a time."""

    unit: Unit = "prediction"

    def rows(self, student: Tensor, teacher: Taught, labels: Any) -> Float[Tensor, " N"]:
        """Of each prediction, with gradient.

        Args:
            student: logits (N, C).
            teacher: its logits, or its cached distributions; may be None if `needs` has nothing
            from it.
            labels: (N,); `SampledTokens` of continuations.
        """
        raise NotImplementedError
