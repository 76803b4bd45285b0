"""Losses on what a model predicts: classes, a score, or the next word.

Against the gold label:

    classes:  −log softmax(z)[label]        score:  (z − label)²
    relevance r of a passage, 0..1:         −r · log σ(z) − (1 − r) · log(1 − σ(z))

    labels of which several may be right:   −Σ_c [y_c·log σ(z_c) + (1 − y_c)·log(1 − σ(z_c))] / C

A prediction without a label contributes exactly 0 and has no gradient. Imbalanced classes can have
weights w, or the focal factor, which reduces the weight of easy examples (p: probability of the
gold class):

    w[label] · (1 − p)^γ · (−log p)

Not included: label smoothing.

Against the teacher, whose distribution, softened by a temperature τ, also contains the relative
probabilities of wrong classes. With p = softmax(teacher/τ), q = softmax(student/τ) and m = (p +
q)/2:

    forward_kl         = τ² · Σ_c p_c · (log p_c − log q_c)        q must cover p
    reverse_kl         = τ² · Σ_c q_c · (log q_c − log p_c)        q may ignore modes of p
    jsd                = ½ · forward_kl against m + ½ · reverse_kl against m, at most τ² · ln 2
    soft_cross_entropy = −τ² · Σ_c p_c · log q_c                   forward_kl + τ² · entropy of p

The factor τ² compensates for gradients that shrink as 1/τ², so that weights mean the same at every
temperature. Scores are always compared by squared error.

A cache may store only some ids of a teacher's distribution and a summary of the rest
(`attar.numerics.sparse_distributions`). forward_kl and soft_cross_entropy are estimated from them
at temperature 1; the other two are weighted by q and not supported.

A classifier predicts once per example. A language model predicts once per token: only tokens with a
label count. Every loss is a formula over rows; `attar.numerics.logits` decides how many rows of
logits exist at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from attar.errors import DataError, ModelError, UsageError, did_you_mean
from attar.losses.config import CrossEntropy, ForwardKl, Jsd, ReverseKl, SoftCrossEntropy
from attar.losses.targets import UNLABELLED, is_labelled
from attar.losses.term import Needs, Pair, PredictionTerm
from attar.numerics.classification import balanced_weights
from attar.numerics.logits import Taught
from attar.numerics.sparse_distributions import SparseDistributions
from attar.tasks.table import KINDS, Gold

LEAST_MISS = 1e-6
"""Minimum of 1 − p in the focal factor, where the loss is about 0."""


def cross_entropy(logits: Float[Tensor, "B C"], labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Negative log-likelihood of the gold class of each example, in nats; 0 if it has no label.

    Example:
        >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item() == torch.tensor(4.0).log()
        tensor(True)
    """
    return functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="none")


def weighed_cross_entropy(
    logits: Float[Tensor, "B C"],
    labels: Int[Tensor, " B"],
    weights: Float[Tensor, " C"] | None = None,
    focal: float = 0.0,
) -> Float[Tensor, " B"]:
    """w[label] · (1 − p)^focal · cross-entropy of each example; 0 if it has no label.

    Law: with weights of 1 and focal 0 it is `cross_entropy`.
    Source: Lin et al., "Focal Loss for Dense Object Detection" (2017), equation 5.
    """
    plain_B = cross_entropy(logits, labels)
    if weights is not None:
        factor_B = weights[labels.clamp(min=0)]
        return factor_B * _eased(plain_B, focal) * plain_B
    return _eased(plain_B, focal) * plain_B


def binary_cross_entropy(
    logits: Float[Tensor, "B C"],
    sets: Int[Tensor, "B C"],
    weights: Float[Tensor, " C"] | None = None,
    focal: float = 0.0,
) -> Float[Tensor, " B"]:
    """Binary cross-entropy, averaged over the classes; 0 for rows with unknown labels.

    Args:
        sets: 1 for each class that is right, 0 for the others; −1 in rows with unknown labels.
        weights: factor of each class in rows where it is right, as `pos_weight` in PyTorch.

    Example:
        >>> found = binary_cross_entropy(torch.zeros(1, 3), torch.tensor([[1, 0, 1]]))
        >>> round(found.item(), 4)
        0.6931
    """
    known_BC, wanted_BC = sets >= 0, (sets > 0).to(logits.dtype)
    plain_BC = functional.binary_cross_entropy_with_logits(logits, wanted_BC, reduction="none")
    values_BC = _eased(plain_BC, focal) * plain_BC
    if weights is not None:
        values_BC = values_BC * torch.where(sets > 0, weights, torch.ones_like(weights))
    return torch.where(known_BC, values_BC, 0).mean(dim=-1)


def _eased(nats: Tensor, focal: float) -> Tensor | float:
    """(1 − p)^focal, where `nats` is −log p."""
    if focal == 0:
        return 1.0
    return (1 - torch.exp(-nats)).clamp(min=LEAST_MISS) ** focal  # at 0, the gradient is infinite


def squared_error(logits: Float[Tensor, "B 1"], scores: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """(prediction − score)² of each example, in squared units of the score; 0 without a score."""
    labelled = is_labelled(scores)
    prediction_B = logits[:, 0]
    # Replace the target before the subtraction: masking a NaN afterwards would leave NaN in the
    # gradient.
    error_B = prediction_B - torch.where(labelled, scores, 0).to(prediction_B.dtype)
    return torch.where(labelled, error_B.square(), 0)


def relevance_error(
    logits: Float[Tensor, "B 1"], relevance: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Binary cross-entropy of the probability σ(z) that a passage is relevant, against its
    relevance 0..1, in nats; 0 if it has no relevance label.

    Raises:
        DataError: a relevance outside 0..1.

    Example:
        >>> relevance_error(torch.zeros(1, 1), torch.ones(1)).item() == torch.tensor(2.0).log()
        tensor(True)
    """
    known = is_labelled(relevance)
    wanted_B = torch.where(known, relevance, 0).to(logits.dtype)
    if ((wanted_B < 0) | (wanted_B > 1)).any():
        raise DataError(
            f"cross_entropy: a row has the relevance {float(wanted_B.abs().max()):g}, but binary "
            "cross-entropy needs labels from 0 (wrong) to 1 (right)"
        )
    error_B = functional.binary_cross_entropy_with_logits(logits[:, 0], wanted_B, reduction="none")
    return torch.where(known, error_B, 0)


AGAINST_GOLD: Mapping[Gold, Callable[[Tensor, Any], Tensor]] = {
    "class": cross_entropy,
    "labels": binary_cross_entropy,
    "tags": cross_entropy,
    "quotes": cross_entropy,
    "number": squared_error,
    "relevance": relevance_error,
    "text": cross_entropy,
    "itself": cross_entropy,
}
"""Kind of gold answer → loss (logits, labels) → (N,)."""


def forward_kl(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: float = 1.0,
) -> Float[Tensor, " B"]:
    """KL(teacher‖student) of each example, in nats, times temperature².

    Law: 0 if the logits differ by a constant, never negative; kl(z, τ) = τ² · kl(z/τ, 1). Gradient
    reaches only the student.
    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.

    Example:
        >>> import torch
        >>> forward_kl(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]])).item()
        0.0
    """
    log_q_BC, log_p_BC = _softened(student_logits, teacher_logits, temperature)
    return divergence(log_p_BC, log_q_BC) * temperature**2


def reverse_kl(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: float = 1.0,
) -> Float[Tensor, " B"]:
    """KL(student‖teacher) of each example, in nats, times temperature².

    It is mode-seeking: a small student fits some modes of the teacher well, whereas forward_kl
    makes it cover all of them.

    Law: forward_kl with student and teacher exchanged, so 0 at equality and never negative.
    Gradient reaches only the student.
    Source: Gu et al., "MiniLLM" (2024), section 2.

    Example:
        >>> sure, unsure = torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> round(reverse_kl(sure, unsure).item(), 3), round(reverse_kl(unsure, sure).item(), 3)
        (0.693, 9.307)
    """
    log_q_BC, log_p_BC = _softened(student_logits, teacher_logits, temperature)
    return divergence(log_q_BC, log_p_BC) * temperature**2


def jsd(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: float = 1.0,
) -> Float[Tensor, " B"]:
    """Jensen–Shannon divergence of each example, in nats, times temperature².

    Law: symmetric; 0 at equality, never negative, at most ln 2 · temperature², however wrong a
    confident student is. Gradient reaches only the student.
    Source: Lin, "Divergence Measures Based on the Shannon Entropy" (1991), section IV.

    Example:
        >>> apart = jsd(torch.tensor([[99.0, -99.0]]), torch.tensor([[-99.0, 99.0]]))
        >>> round(apart.item(), 4)
        0.6931
    """
    log_q_BC, log_p_BC = _softened(student_logits, teacher_logits, temperature)
    log_m_BC = torch.logaddexp(log_q_BC, log_p_BC) - math.log(2)
    both = divergence(log_p_BC, log_m_BC) + divergence(log_q_BC, log_m_BC)
    return both / 2 * temperature**2


def soft_cross_entropy(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: float = 1.0,
) -> Float[Tensor, " B"]:
    """−Σ p log q of each example, in nats, times temperature²: summed over the classes.

    Law: forward_kl plus temperature² · the teacher's entropy, which is its minimum, reached at
    equality; the gradient is forward_kl's. Gradient reaches only the student.
    Source: Jiao et al., "TinyBERT" (2020), equation 10.
    *Differs from the published code*: no mean over the classes, which would make the weight of the
    term depend on their number; and the factor temperature².

    Example:
        >>> round(soft_cross_entropy(torch.zeros(1, 4), torch.zeros(1, 4)).item(), 4)
        1.3863
    """
    log_q_BC, log_p_BC = _softened(student_logits, teacher_logits, temperature)
    return -(log_p_BC.exp() * log_q_BC).sum(dim=-1) * temperature**2


def two_sided(logits: Tensor) -> Float[Tensor, "N 2"]:
    """Each class of each row as a binary distribution: softmax(z, 0) is (σ(z), 1 − σ(z))."""
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1).flatten(0, -2)


def _label_by_label(divergence: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The divergence of each class separately, averaged over the classes."""

    def between(student: Tensor, teacher: Tensor) -> Tensor:
        found = divergence(two_sided(student), two_sided(teacher))
        return found.view_as(student).mean(dim=-1)

    return between


def score_difference(
    student_logits: Float[Tensor, "B 1"], teacher_logits: Float[Tensor, "B 1"]
) -> Float[Tensor, " B"]:
    """(student − teacher)² of each example: the KL between two normal distributions with variance ½
    and the scores as means.

    Law: 0 at equality, never negative.
    """
    return (student_logits - teacher_logits.detach()).square()[:, 0]


def _softened(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log q with gradient, and log p without."""
    if temperature != 1.0:  # the condition saves two passes over the vocabulary
        student, teacher = student / temperature, teacher / temperature
    log_q_BC = functional.log_softmax(student, dim=-1)
    return log_q_BC, functional.log_softmax(teacher.detach(), dim=-1)


def divergence(log_first: Tensor, log_second: Tensor) -> Tensor:
    """KL(first‖second) of log-probabilities along the last axis."""
    kl = (log_first.exp() * (log_first - log_second)).sum(dim=-1)
    # Rounding can give −1e-8 where both agree, but a divergence is never negative.
    return kl.clamp(min=0)


DIVERGENCES: Mapping[str, Callable[..., Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "soft_cross_entropy": soft_cross_entropy,
}
"""Kind → (student logits, teacher logits, temperature) → (N,)."""


class CrossEntropyTerm(PredictionTerm):
    """Loss against the gold label."""

    unit = "labelled"

    def __init__(self, config: CrossEntropy, objective: str, pair: Pair | None) -> None:
        super().__init__()
        kind = KINDS[objective]
        if (config.class_weights or config.focal) and not kind.has_classes:
            raise ModelError(
                "cross_entropy: class_weights and focal need classes, but the objective is "
                f"{objective}; remove them"
            )
        self._asked, self._focal = config.class_weights, config.focal
        self._weights: Tensor | None = None
        self._compared = AGAINST_GOLD[kind.gold]
        if kind.gives_sets:
            self._compared = self._of_sets
        elif self._asked or self._focal:
            self._compared = self._of_classes

    def weigh(self, names: Sequence[str], labels: np.ndarray) -> None:
        """Compute the class weights from the training labels.

        Args:
            names: of the classes, in the order of the logits.
            labels: classes (N,), or sets of them (N, C).

        Raises:
            UsageError: a weight for an unknown class.
        """
        if isinstance(self._asked, dict):
            unknown = [name for name in self._asked if name not in names]
            if unknown:
                raise UsageError(
                    f"cross_entropy: class_weights names {unknown[0]!r}"
                    f"{did_you_mean(unknown[0], list(names))}; the classes are {', '.join(names)}"
                )
            self._weights = torch.tensor([self._asked.get(name, 1.0) for name in names])
        elif self._asked == "balanced":
            self._weights = torch.tensor(balanced_weights(labels, len(names)).tolist())

    def _of_classes(self, logits: Tensor, labels: Tensor) -> Tensor:
        return weighed_cross_entropy(logits, labels, self._weights_on(logits), self._focal)

    def _of_sets(self, logits: Tensor, sets: Tensor) -> Tensor:
        return binary_cross_entropy(logits, sets, self._weights_on(logits), self._focal)

    def _weights_on(self, logits: Tensor) -> Tensor | None:
        return None if self._weights is None else self._weights.to(logits)

    def rows(self, student: Tensor, teacher: Taught, labels: Any) -> Tensor:
        if isinstance(teacher, SparseDistributions):  # shares the log softmax of other terms
            log_q_NV = teacher.log_q(student)
            return functional.nll_loss(log_q_NV, labels, reduction="none")
        return self._compared(student, labels)


class DivergenceTerm(PredictionTerm):
    """Divergence between the student's and the teacher's predictions; for a score, the squared
    difference from the teacher's score, or from the gold score (soft_cross_entropy, if set)."""

    needs = Needs(teacher_logits=True)

    def __init__(
        self,
        config: ForwardKl | ReverseKl | Jsd | SoftCrossEntropy,
        objective: str,
        pair: Pair | None,
    ) -> None:
        super().__init__()
        self._kind = config.kind
        kind = KINDS[objective]
        is_score = kind.is_score
        self._against_gold = is_score and getattr(config, "score", "teacher") == "gold"
        if self._against_gold:
            self.unit = "labelled"
        divergence = partial(DIVERGENCES[config.kind], temperature=config.temperature)
        self._between: Callable[..., Tensor] = score_difference if is_score else divergence
        if kind.gives_sets:
            self._between = _label_by_label(divergence)

    def rows(self, student: Tensor, teacher: Taught, labels: Any) -> Tensor:
        assert teacher is not None
        if isinstance(teacher, SparseDistributions):
            is_kl = self._kind == "forward_kl"
            return teacher.forward_kl(student) if is_kl else teacher.cross_entropy(student)
        if self._against_gold:
            return squared_error(student, labels)
        return self._between(student, teacher)
