"""How far the student's prediction is from the teacher's.

Softened by a temperature τ, both distributions show how the wrong classes compare, which the gold
label does not say. With p = softmax(teacher/τ), q = softmax(student/τ) and m = (p + q)/2:

    forward_kl         = τ² · Σ_c p_c · (log p_c − log q_c)        q must cover all that p does
    reverse_kl         = τ² · Σ_c q_c · (log q_c − log p_c)        q may leave out what p has
    jsd                = ½ · forward_kl against m + ½ · reverse_kl against m, at most τ² · ln 2
    soft_cross_entropy = −τ² · Σ_c p_c · log q_c                   forward_kl + τ² · entropy of p

The factor τ² keeps the gradient's size independent of τ (it shrinks as 1/τ²), so that weights mean
the same at every temperature. What is called a divergence is one: 0 at equality and never negative.
The soft cross-entropy is none, hence its name; its gradient is forward_kl's.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def forward_kl(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: float = 1.0,
) -> Float[Tensor, " B"]:
    """KL(teacher‖student) of each example, in nats, times temperature².

    Law: 0 where the logits differ by a constant, never negative; kl(z, τ) = τ² · kl(z/τ, 1).
    Gradient reaches the student only.
    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.

    Example:
        >>> import torch
        >>> forward_kl(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]])).item()
        0.0
    """
    log_q_BC, log_p_BC = _softened(student_logits, teacher_logits, temperature)
    return _divergence(log_p_BC, log_q_BC) * temperature**2


def reverse_kl(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: float = 1.0,
) -> Float[Tensor, " B"]:
    """KL(student‖teacher) of each example, in nats, times temperature².

    A student too small for all that the teacher says is drawn to a part of it that it can say well,
    where forward_kl would have it say a little of everything.

    Law: forward_kl with the two exchanged, and so 0 at equality and never negative. Gradient
    reaches the student only.
    Source: Gu et al., "MiniLLM" (2024), section 2.

    Example:
        >>> sure, unsure = torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> round(reverse_kl(sure, unsure).item(), 3), round(reverse_kl(unsure, sure).item(), 3)
        (0.693, 9.307)
    """
    log_q_BC, log_p_BC = _softened(student_logits, teacher_logits, temperature)
    return _divergence(log_q_BC, log_p_BC) * temperature**2


def jsd(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: float = 1.0,
) -> Float[Tensor, " B"]:
    """Jensen–Shannon divergence of each example, in nats, times temperature².

    Law: symmetric; 0 at equality, never negative, at most ln 2 · temperature², however sure and
    however wrong the student is. Gradient reaches the student only.
    Source: Lin, "Divergence Measures Based on the Shannon Entropy" (1991), section IV.

    Example:
        >>> apart = jsd(torch.tensor([[99.0, -99.0]]), torch.tensor([[-99.0, 99.0]]))
        >>> round(apart.item(), 4)
        0.6931
    """
    log_q_BC, log_p_BC = _softened(student_logits, teacher_logits, temperature)
    log_m_BC = torch.logaddexp(log_q_BC, log_p_BC) - math.log(2)
    both = _divergence(log_p_BC, log_m_BC) + _divergence(log_q_BC, log_m_BC)
    return both / 2 * temperature**2


def soft_cross_entropy(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: float = 1.0,
) -> Float[Tensor, " B"]:
    """−Σ p log q of each example, in nats, times temperature²: summed over the classes.

    Law: forward_kl plus temperature² · the teacher's entropy, which it reaches at equality and
    never falls below; the gradient is forward_kl's. Gradient reaches the student only.
    Source: Jiao et al., "TinyBERT" (2020), equation 10.
    *Differs from the published code*: no mean over the classes, which would make the weight of the
    term depend on their number; and the factor temperature².

    Example:
        >>> round(soft_cross_entropy(torch.zeros(1, 4), torch.zeros(1, 4)).item(), 4)
        1.3863
    """
    log_q_BC, log_p_BC = _softened(student_logits, teacher_logits, temperature)
    return -(log_p_BC.exp() * log_q_BC).sum(dim=-1) * temperature**2


def score_difference(
    student_logits: Float[Tensor, "B 1"], teacher_logits: Float[Tensor, "B 1"]
) -> Float[Tensor, " B"]:
    """(student − teacher)² of each example: the KL of two normal distributions of variance ½ around
    the scores.

    Law: 0 at equality, never negative.
    """
    return (student_logits - teacher_logits.detach()).square()[:, 0]


def _softened(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log q with gradient, log p without."""
    log_q_BC = functional.log_softmax(student / temperature, dim=-1)
    return log_q_BC, functional.log_softmax(teacher.detach() / temperature, dim=-1)


def _divergence(log_first_BC: Tensor, log_second_BC: Tensor) -> Tensor:
    """KL(first‖second) of each row."""
    kl_B = (log_first_BC.exp() * (log_first_BC - log_second_BC)).sum(dim=-1)
    # Rounding can leave −1e-8 where both agree; a divergence below 0 does not exist.
    return kl_B.clamp(min=0)
