"""The training objective: a weighted sum of terms, each with its own value for the log.

    total = Σ_terms weight(progress) · Σ_shares Σ_B sum_B / count(unit)

`count` is over the whole batch, so the totals of its micro-batches add up to the total of the
batch, to rounding, and so do their gradients. Each example's contribution is returned too, so that
a NaN can be traced to its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from attar.losses.config import LossConfig, LossSettings, WeightSchedule, weight_at
from attar.losses.predictions import CrossEntropyTerm
from attar.losses.sensitivity_mse import SensitivityMseTerm, SquaredGradients
from attar.losses.states import MappedStates
from attar.losses.targets import Counts, Outputs, Targets
from attar.losses.term import Needs, Pair, PredictionTerm, Term
from attar.numerics.logits import Gradients, row_values, with_gradients

LOWER_BOUND = "_lower_bound"
"""Suffix of a term's name if the tail of the teacher's distributions is a single bucket."""


def term_class(config: LossSettings | type[LossSettings]) -> type[Any]:
    """The `Term` class of a loss, constructed from (config, objective, shapes of the two models or
    None)."""
    module, _, name = config.term.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class LossValues:
    """One (micro-)batch's share of the objective."""

    total: Float[Tensor, ""]
    """The value to differentiate."""
    terms: dict[str, Float[Tensor, ""]]
    """Unweighted share of each term, without gradient; the shares of micro-batches add up."""
    examples: Float[Tensor, " B"]
    """Each example's share of the total, without gradient."""
    facts: dict[str, float] = field(default_factory=dict[str, float])
    """Further values reported by terms, "<term>.<value>"; equal in all micro-batches."""


def needs_of(terms: Sequence[LossConfig]) -> Needs:
    """Combined needs of these terms."""
    return reduce(Needs.__or__, (term_class(term).needs_for(term) for term in terms), Needs())


class TotalLoss(nn.Module):
    """The weighted sum of loss terms, for one objective.

    Args:
        objective: of the task, a name in `attar.tasks.table`.
        pair: shapes of student and teacher; needed by terms that compare internal states.

    Raises:
        ModelError: a term cannot compare these two models.
    """

    def __init__(
        self, terms: Sequence[LossConfig], objective: str, pair: Pair | None = None
    ) -> None:
        super().__init__()
        self.objective = objective
        self.terms = dict(zip(_distinct_names(terms), terms, strict=True))
        self.made = nn.ModuleDict(
            {name: term_class(term)(term, objective, pair) for name, term in self.terms.items()}
        )

    @property
    def needs(self) -> Needs:
        """Combined needs of all terms."""
        return needs_of(tuple(self.terms.values()))

    @property
    def taught_states(self) -> Mapping[str, tuple[int, ...]]:
        """Stack → the teacher's hidden states that the terms use."""
        found: dict[str, set[int]] = {}
        for module in self.modules():
            if isinstance(module, MappedStates):
                for stack, layer_map in module.maps.items():
                    found.setdefault(stack, set()).update(layer_map.values())
        return {stack: tuple(sorted(states)) for stack, states in found.items()}

    def learn(self, found: Mapping[str, Sequence[SquaredGradients]]) -> None:
        """Pass the sensitivity of the teacher's prediction to the terms that need it.

        Args:
            found: stack → one measurement per hidden state.
        """
        for _, term in self._named():
            if isinstance(term, SensitivityMseTerm):
                term.learn(found)

    def weigh(self, names: Sequence[str], labels: np.ndarray) -> None:
        """Pass the class names and the training labels to the terms that need them."""
        for _, term in self._named():
            if isinstance(term, CrossEntropyTerm):
                term.weigh(names, labels)

    def look_at(self, teacher: Sequence[Outputs], targets: Sequence[Targets]) -> None:
        """Pass the teacher's outputs on all micro-batches of a batch to the terms that need
        them."""
        for _, term in self._named():
            if term.needs.whole_batch:
                term.look_at(teacher, targets)

    def forget(self) -> None:
        """Undo the last `look_at`, because its step is skipped."""
        for _, term in self._named():
            term.forget()

    def forward(
        self,
        student: Outputs,
        teacher: Outputs | None,
        targets: Targets,
        counts: Counts,
        progress: float = 0.0,
    ) -> LossValues:
        """Evaluate all terms.

        Args:
            student: of this micro-batch; carries the gradient.
            teacher: of the same micro-batch; None if no term needs it.
            targets: of the same micro-batch.
            counts: of the whole batch (`count_units`).
            progress: share of all steps that are done, for scheduled weights.
        """
        counts = {unit: max(count, 1) for unit, count in counts.items()}  # a sum of none is 0
        shares_B, gradients = self._shares(student, teacher, targets, counts, progress)
        examples = torch.zeros(len(targets.labels), device=targets.labels.device)
        facts = dict(targets.facts)
        for name, term in self._named():
            weight = weight_at(self.terms[name].weight, progress)
            examples = examples + weight * shares_B[name]
            if isinstance(self.terms[name].weight, WeightSchedule):
                facts[f"{name}.weight"] = weight
            facts |= {f"{name}.{figure}": value for figure, value in term.facts().items()}
        sparse = None if teacher is None else teacher.sparse
        is_bound = sparse is not None and sparse.is_bound
        values = {
            f"{name}{LOWER_BOUND}" if is_bound and term.needs.teacher_logits else name: (
                shares_B[name].detach().sum()
            )
            for name, term in self._named()
        }
        total = with_gradients(examples.sum(), gradients)
        return LossValues(total, values, examples.detach(), facts)

    def _shares(
        self,
        student: Outputs,
        teacher: Outputs | None,
        targets: Targets,
        counts: Counts,
        progress: float,
    ) -> tuple[dict[str, Tensor], Gradients]:
        """Each term's unweighted share per example, (B,), and the gradients of the prediction
        terms. The latter are evaluated together, so their shares carry no gradient themselves."""
        shares: dict[str, Tensor] = {}
        predictions: dict[str, PredictionTerm] = {}
        for name, term in self._named():
            if isinstance(term, PredictionTerm):
                predictions[name] = term
            else:
                own = [s.sums / counts[s.unit] for s in term(student, teacher, targets)]
                # for texts read separately: all first texts come before all second ones
                by_text = torch.stack(own).sum(dim=0)
                shares[name] = by_text.view(-1, len(targets.labels)).sum(dim=0)
        if not predictions:
            return shares, []
        # same dtype as the values, so that weights are rounded alike
        one = torch.ones((), dtype=student.logits.dtype)
        index = torch.nonzero(targets.predicted, as_tuple=True)
        values, gradients = row_values(
            [term.rows for term in predictions.values()],
            index,
            student.logits,
            targets.at(index),
            teacher=(teacher.sparse or teacher.logits)
            if self.needs.teacher_logits and teacher
            else None,
            factors=[
                float(one * weight_at(self.terms[name].weight, progress) / counts[term.unit])
                for name, term in predictions.items()
            ],
        )
        for (name, term), value in zip(predictions.items(), values, strict=True):
            sums = value.new_zeros(len(targets.labels)).index_add(0, index[0], value)
            shares[name] = sums / counts[term.unit]
        return shares, gradients

    def _named(self) -> list[tuple[str, Term]]:
        return [(name, cast("Term", self.made[name])) for name in self.terms]


def _distinct_names(terms: Sequence[LossConfig]) -> list[str]:
    """The kind of each term; repeated kinds are numbered: forward_kl, forward_kl_2."""
    names: list[str] = []
    for index, term in enumerate(terms):
        earlier = sum(other.kind == term.kind for other in terms[:index])
        names.append(f"{term.kind}_{earlier + 1}" if earlier else term.kind)
    return names
