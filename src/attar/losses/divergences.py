"""How far the student's prediction is from the teacher's.

Softened by a temperature τ, both distributions show how the wrong classes compare, which the gold
label does not say:

    forward_kl = τ² · Σ_c p_c · (log p_c − log q_c),   p = softmax(teacher/τ),  q =
    softmax(student/τ)

The factor τ² keeps the gradient's size independent of τ (it shrinks as 1/τ²), so that weights mean
the same at every temperature. It is the true divergence: the teacher's entropy is subtracted, hence
0 at equality, and never negative.
"""

from __future__ import annotations

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
    log_q_BC = functional.log_softmax(student_logits / temperature, dim=-1)
    log_p_BC = functional.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    kl_B = (log_p_BC.exp() * (log_p_BC - log_q_BC)).sum(dim=-1)
    # Rounding can leave −1e-8 where both agree; a divergence below 0 does not exist.
    return kl_B.clamp(min=0) * temperature**2


def score_difference(
    student_logits: Float[Tensor, "B 1"], teacher_logits: Float[Tensor, "B 1"]
) -> Float[Tensor, " B"]:
    """(student − teacher)² of each example: the KL of two normal distributions of variance ½ around
    the scores.

    Law: 0 at equality, never negative.
    """
    return (student_logits - teacher_logits.detach()).square()[:, 0]
