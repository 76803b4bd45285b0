"""How far the student's hidden states are from the teacher's.

For a mapped pair of hidden states, the mean over the hidden dimensions of the squared difference,
summed over the real tokens of an example; padding is left out, since what a model computes there
means nothing:

    sum_B = Σ_T mask_BT · mean_D( w_D · (H^s_BTD − H^t_BTD)² )

Weights w are 1 in the plain mean squared error. The cosine distance asks for the direction only.
Shapes: B examples, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from attar.errors import ModelError

LayerMap = Mapping[int, int]
"""Student hidden state → teacher hidden state; 0 is the embedding output, k the output of block k.
"""


def resolve_layer_map(
    asked: str | LayerMap, student_blocks: int, teacher_blocks: int, kind: str = "hidden_mse"
) -> LayerMap:
    """The pairs a setting stands for. `uniform`: i → i·L_teacher/L_student from the embeddings up;
    `last`: the last only.

    Args:
        kind: of the loss that asks, for the message.
    Raises:
        ModelError: the depths do not divide (uniform), or a pair names a hidden state that does not
            exist.

    Example:
        >>> resolve_layer_map("uniform", 3, 6)
        {0: 0, 1: 2, 2: 4, 3: 6}
    """
    if isinstance(asked, Mapping):
        wrong = [
            f"{s} → {t}"
            for s, t in asked.items()
            if not (0 <= s <= student_blocks and 0 <= t <= teacher_blocks)
        ]
        if wrong or not asked:
            raise ModelError(
                f"{kind}: layer_map has {', '.join(wrong) or 'no pairs'}; student states "
                f"are 0..{student_blocks}, the teacher's 0..{teacher_blocks} (0: embedding output)"
            )
        return asked
    if asked == "last":
        return {student_blocks: teacher_blocks}
    if teacher_blocks % student_blocks:
        raise ModelError(
            f'{kind}: layer_map "uniform" needs the teacher\'s depth to be a multiple of the '
            f"student's, got {teacher_blocks} and {student_blocks} blocks; write pairs, such as "
            f"layer_map = {{ 0 = 0, {student_blocks} = {teacher_blocks} }}"
        )
    stride = teacher_blocks // student_blocks
    return {i: i * stride for i in range(student_blocks + 1)}


def squared_distance(
    student: Float[Tensor, "B T D"],
    teacher: Float[Tensor, "B T D"],
    mask: Int[Tensor, "B T"],
    weights: Float[Tensor, " D"] | None = None,
) -> Float[Tensor, " B"]:
    """Squared difference of two hidden states, mean over dimensions, summed over each example's
    real tokens.

    Law: 0 at equality, never negative, and blind to what stands in the padding. Gradient reaches
    the student only.

    Args:
        weights: of each dimension; None: 1.
    Source: Jiao et al., "TinyBERT" (2020), equation 8, with padding excluded.
    """
    # Padding may hold anything, infinity included: it is cut out before the square, not multiplied
    # away.
    squares = torch.where(mask.bool().unsqueeze(-1), student - teacher.detach(), 0).square()
    weighted = squares if weights is None else squares * weights
    return weighted.mean(dim=-1).sum(dim=-1)


def cosine_distance(
    student: Float[Tensor, "B T D"],
    teacher: Float[Tensor, "B T D"],
    mask: Int[Tensor, "B T"],
) -> Float[Tensor, " B"]:
    """1 − cosine of two hidden states, summed over each example's real tokens.

    Computed as half the squared distance of the two directions, which is the same and leaves
    nothing to cancel where they agree.

    Law: 0 where one is a positive multiple of the other, never negative, at most 2 a token, and
    blind to lengths and to the padding. Gradient reaches the student only.
    Source: Sanh et al., "DistilBERT" (2019), section 3.
    """
    real = mask.bool()
    own, taught = (functional.normalize(h[real], dim=-1) for h in (student, teacher.detach()))
    distances = (own - taught).square().sum(dim=-1) / 2
    sums = torch.zeros(len(mask), dtype=distances.dtype, device=distances.device)
    return sums.index_add(0, torch.nonzero(real)[:, 0], distances)
