"""Terms on what the models predict: classes, a score, or the next word.

A classifier predicts once an example. A language model predicts once a token: only the tokens with
a label count, they are picked before anything of size S · C is computed, and an example's sum runs
over its own. A score is compared by its square, whatever the term is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from attar.losses.config import ForwardKl, Jsd, ReverseKl, SoftCrossEntropy
from attar.losses.cross_entropy import cross_entropy, squared_error
from attar.losses.divergences import (
    forward_kl,
    jsd,
    reverse_kl,
    score_difference,
    soft_cross_entropy,
)
from attar.losses.rows import Rowwise, sum_by_example
from attar.losses.shapes import Pair
from attar.losses.targets import Outputs, Targets
from attar.losses.terms.term import Needs, Share, Term


class CrossEntropyTerm(Term):
    """Against the gold label."""

    def __init__(self, config: Any, objective: str, pair: Pair | None) -> None:
        super().__init__()
        self._is_score = objective == "regression"

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        if self._is_score:
            return [Share("labelled", squared_error(student.logits, targets.labels))]
        sums = per_example(targets, cross_entropy, student.logits, targets.labels)
        return [Share("labelled", sums)]


class DivergenceTerm(Term):
    """Between the student's and the teacher's predictions."""

    needs = Needs(teacher_logits=True)
    divergence: Callable[..., Tensor]
    """(student logits, teacher logits, temperature) → (N,)."""

    def __init__(
        self,
        config: ForwardKl | ReverseKl | Jsd | SoftCrossEntropy,
        objective: str,
        pair: Pair | None,
    ) -> None:
        super().__init__()
        self._is_score = objective == "regression"
        self._temperature = config.temperature

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        assert teacher is not None
        if self._is_score:
            return [Share("prediction", score_difference(student.logits, teacher.logits))]
        between = type(self).divergence

        def softened(own: Tensor, taught: Tensor) -> Tensor:
            return between(own, taught, self._temperature)

        sums = per_example(targets, softened, student.logits, teacher.logits)
        return [Share("prediction", sums)]


class ForwardKlTerm(DivergenceTerm):
    """KL(teacher‖student)."""

    divergence = staticmethod(forward_kl)


class ReverseKlTerm(DivergenceTerm):
    """KL(student‖teacher)."""

    divergence = staticmethod(reverse_kl)


class JsdTerm(DivergenceTerm):
    """Jensen–Shannon divergence."""

    divergence = staticmethod(jsd)


class SoftCrossEntropyTerm(DivergenceTerm):
    """Against the teacher's distribution; a score against the teacher's or the gold one."""

    divergence = staticmethod(soft_cross_entropy)

    def __init__(self, config: SoftCrossEntropy, objective: str, pair: Pair | None) -> None:
        super().__init__(config, objective, pair)
        self._against_gold = self._is_score and config.score == "gold"

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        if self._against_gold:
            return [Share("labelled", squared_error(student.logits, targets.labels))]
        return super().forward(student, teacher, targets)


def per_example(
    targets: Targets, function: Rowwise, student_logits: Tensor, other: Tensor
) -> Tensor:
    """Σ over each example's counting predictions of function(logits, other), (B,).

    Args:
        function: of rows (N, …) → (N,).
        student_logits, other: (B, …), or (B, S, …) where every token predicts.
    """
    if targets.labels.ndim == 1:
        return function(student_logits, other)
    return sum_by_example(function, targets.predicted, student_logits, other)
