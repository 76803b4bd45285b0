"""What every summand of an objective is: something that compares outputs and says in which unit.

A term is a module, because some learn (a projection between widths) or remember (running
statistics); what it holds is trained, saved and resumed with the student and left out of the
artifact. To add one: its maths in `losses/`, its class here, a member of the union in
`losses/config`, a row of `TERMS` in `losses/total`, its card in docs/methods, its laws in tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from attar.losses.targets import Outputs, Targets, Unit


@dataclass(frozen=True)
class Needs:
    """What a term must be shown of both models, beside the student's logits."""

    teacher_logits: bool = False
    hidden: bool = False
    scores: bool = False
    qkv: bool = False
    sensitivity: bool = False
    """How much the teacher's answer depends on its hidden states, measured before the first step.
    """
    whole_batch: bool = False
    """`look_at` must see the teacher on the whole batch before the first micro-batch is judged."""

    @property
    def teacher(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    @property
    def inside(self) -> bool:
        """Whether a term looks inside the models, whose shapes it must then know."""
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
    """The most it can ask for."""

    @classmethod
    def needs_for(cls, config: Any) -> Needs:
        """What it asks for with these settings."""
        return cls.needs

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        """The shares of one micro-batch; the term's value is their sum.

        Args:
            teacher: of the same micro-batch; None if `needs` asks nothing of it.
        """
        raise NotImplementedError

    def look_at(self, teacher: Sequence[Outputs], targets: Sequence[Targets]) -> None:
        """See the teacher on all micro-batches of a batch; called only where `needs` asks."""

    def forget(self) -> None:
        """Undo the last `look_at`: the step it was for will not be done."""

    def facts(self) -> Mapping[str, float]:
        """Figures for the log, as of the last batch, such as an effective number of dimensions."""
        return {}
