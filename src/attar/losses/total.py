"""The training objective: a weighted sum of terms, each with its own value for the log.

    total = Σ_terms weight · Σ_B sum_B / count(unit)

`count` is over the whole batch, so the totals of its micro-batches add up to the total of the
batch, to rounding, and so do their gradients. Every term also says how much each example
contributed, so that a value that is not a number can be traced to its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from attar.losses.config import NEEDS_TEACHER, CrossEntropy, ForwardKl, HiddenMse, LossConfig
from attar.losses.cross_entropy import cross_entropy, squared_error
from attar.losses.divergences import forward_kl, score_difference
from attar.losses.hidden import hidden_mse, require_equal_width, resolve_layer_map
from attar.losses.targets import Outputs, Targets, Unit

UNITS: Mapping[str, Unit] = {
    "cross_entropy": "labelled",
    "forward_kl": "example",
    "hidden_mse": "token",
}
"""What each term is a mean over."""


@dataclass(frozen=True)
class LossValues:
    """One (micro-)batch's share of the objective."""

    total: Float[Tensor, ""]
    """What is differentiated."""
    terms: dict[str, Float[Tensor, ""]]
    """Unweighted share of each term, without gradient; they add up over micro-batches."""
    examples: Float[Tensor, " B"]
    """Each example's share of the total, without gradient."""


class TotalLoss:
    """The sum of weighted terms of a recipe, for one objective."""

    def __init__(
        self, terms: Sequence[LossConfig], objective: Literal["classification", "regression"]
    ) -> None:
        self.objective = objective
        self.terms = dict(zip(_distinct_names(terms), terms, strict=True))

    @property
    def needs_teacher(self) -> bool:
        return any(term.kind in NEEDS_TEACHER for term in self.terms.values())

    @property
    def needs_teacher_logits(self) -> bool:
        return any(isinstance(term, ForwardKl) for term in self.terms.values())

    @property
    def needs_hidden_states(self) -> bool:
        return any(isinstance(term, HiddenMse) for term in self.terms.values())

    def __call__(
        self,
        student: Outputs,
        teacher: Outputs | None,
        targets: Targets,
        counts: Mapping[Unit, int],
    ) -> LossValues:
        """Evaluate all terms.

        Args:
            student: of this micro-batch; carries the gradient.
            teacher: of the same micro-batch; None if no term needs it.
            targets: of the same micro-batch.
            counts: of the whole batch (`count_units`).
        """
        values: dict[str, Tensor] = {}
        examples = torch.zeros(
            len(student.logits), dtype=student.logits.dtype, device=student.logits.device
        )
        for name, term in self.terms.items():
            share_B = self._sums(term, student, teacher, targets) / counts[UNITS[term.kind]]
            values[name] = share_B.detach().sum()
            examples = examples + term.weight * share_B
        return LossValues(examples.sum(), values, examples.detach())

    def _sums(
        self, term: LossConfig, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Tensor:
        is_score = self.objective == "regression"
        if isinstance(term, CrossEntropy):
            against_gold = squared_error if is_score else cross_entropy
            return against_gold(student.logits, targets.labels)
        assert teacher is not None, f"{term.kind} was called without the teacher's outputs"
        if isinstance(term, ForwardKl):
            if is_score:
                return score_difference(student.logits, teacher.logits)
            return forward_kl(student.logits, teacher.logits, term.temperature)
        layer_map = resolve_layer_map(
            term.layer_map, len(student.hidden_states) - 1, len(teacher.hidden_states) - 1
        )
        require_equal_width(student.hidden_states[0].shape[-1], teacher.hidden_states[0].shape[-1])
        return hidden_mse(
            student.hidden_states, teacher.hidden_states, targets.attention_mask, layer_map
        )


def _distinct_names(terms: Sequence[LossConfig]) -> list[str]:
    """The kind, numbered from the second of its kind on: forward_kl, forward_kl_2."""
    names: list[str] = []
    for index, term in enumerate(terms):
        earlier = sum(other.kind == term.kind for other in terms[:index])
        names.append(f"{term.kind}_{earlier + 1}" if earlier else term.kind)
    return names
