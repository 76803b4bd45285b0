"""How far the student's attention scores are from the teacher's.

Scores are compared before the softmax, where a small probability still has a size of its own. What
no mask lets through is no score: only pairs of real tokens count, and in a causal stack only keys
at or before the query. A query's error is the mean over the keys it may see, so that the loss is a
mean over real tokens, as that of hidden states is:

    sum_B = Σ_T mask_BT · mean_H mean_(S seen from T) (a^s_BHTS − a^t_BHTS)²

Shapes: B examples, T queries, S keys, H heads.
Source: Jiao et al., "TinyBERT" (2020), equation 7.
*Differs from the published code*: that sets scores at or below −100 to 0 and takes the mean over
all positions, padding included.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attar.errors import ModelError
from attar.losses.hidden import LayerMap


def resolve_attention_map(
    asked: str | LayerMap, student_blocks: int, teacher_blocks: int, kind: str = "attention_mse"
) -> LayerMap:
    """Student attention → teacher attention, block 0 being the first. `uniform`: i → k·i + k − 1
    for k = L_teacher / L_student, the last of each k blocks; `last`: the last only.

    Args:
        kind: of the loss that asks, for the message.
    Raises:
        ModelError: the depths do not divide (uniform), or a pair names a block that does not exist.

    Example:
        >>> resolve_attention_map("uniform", 3, 6)
        {0: 1, 1: 3, 2: 5}
    """
    if isinstance(asked, Mapping):
        wrong = [
            f"{s} → {t}"
            for s, t in asked.items()
            if not (0 <= s < student_blocks and 0 <= t < teacher_blocks)
        ]
        if wrong or not asked:
            raise ModelError(
                f"{kind}: layer_map has {', '.join(wrong) or 'no pairs'}; the student's attentions "
                f"are 0..{student_blocks - 1}, the teacher's 0..{teacher_blocks - 1}"
            )
        return asked
    if asked == "last":
        return {student_blocks - 1: teacher_blocks - 1}
    if teacher_blocks % student_blocks:
        raise ModelError(
            f'{kind}: layer_map "uniform" needs the teacher\'s depth to be a multiple of the '
            f"student's, got {teacher_blocks} and {student_blocks} blocks; write pairs, such as "
            f"layer_map = {{ {student_blocks - 1} = {teacher_blocks - 1} }}"
        )
    stride = teacher_blocks // student_blocks
    return {i: stride * i + stride - 1 for i in range(student_blocks)}


def seen_pairs(mask: Int[Tensor, "B T"], is_causal: bool) -> Bool[Tensor, "B T T"]:
    """Which keys (last axis) a query sees: real ones from a real one, in a causal stack none behind
    it.

    Example:
        >>> seen_pairs(torch.tensor([[1, 1, 0]]), is_causal=True).int().tolist()
        [[[1, 0, 0], [1, 1, 0], [0, 0, 0]]]
    """
    real = mask.bool()
    seen = real.unsqueeze(2) & real.unsqueeze(1)
    return seen.tril() if is_causal else seen


def score_distance(
    student: Float[Tensor, "B H T T"],
    teacher: Float[Tensor, "B H T T"],
    seen: Bool[Tensor, "B T T"],
) -> Float[Tensor, " B"]:
    """Squared difference of two attentions' scores, mean over heads and over the keys a query sees,
    summed over each example's queries.

    Law: 0 at equality, never negative, and blind to what is not seen. Gradient reaches the student
    only.
    """
    # What is not seen may hold anything, infinity included: it is cut out before the square.
    squares = torch.where(seen.unsqueeze(1), student - teacher.detach(), 0).square()
    by_query = squares.mean(dim=1).sum(dim=-1) / seen.sum(dim=-1).clamp(min=1)
    return by_query.sum(dim=-1)
