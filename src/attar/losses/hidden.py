"""How far the student's hidden states are from the teacher's.

For each mapped pair of hidden states, the mean over the hidden dimensions of the squared
difference, summed over the real tokens of an example and averaged over the pairs; padding is left
out, since what a model computes there means nothing:

    sum_B = 1/|map| · Σ_(s→t) Σ_T mask_BT · mean_D( (H^s_BTD − H^t_BTD)² )

Left out: a projection for students of another width; it comes with a method that learns one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attar.errors import ModelError

LayerMap = Mapping[int, int]
"""Student hidden state → teacher hidden state; 0 is the embedding output, k the output of block k.
"""


def resolve_layer_map(asked: str | LayerMap, student_blocks: int, teacher_blocks: int) -> LayerMap:
    """The pairs a setting stands for. `uniform`: i → i·L_teacher/L_student from the embeddings up;
    `last`: the last only.

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
                f"hidden_mse: layer_map has {', '.join(wrong) or 'no pairs'}; student states "
                f"are 0..{student_blocks}, the teacher's 0..{teacher_blocks} (0: embedding output)"
            )
        return asked
    if asked == "last":
        return {student_blocks: teacher_blocks}
    if teacher_blocks % student_blocks:
        raise ModelError(
            'hidden_mse: layer_map "uniform" needs the teacher\'s depth to be a multiple of the '
            f"student's, got {teacher_blocks} and {student_blocks} blocks; write pairs, such as "
            f"layer_map = {{ 0 = 0, {student_blocks} = {teacher_blocks} }}"
        )
    stride = teacher_blocks // student_blocks
    return {i: i * stride for i in range(student_blocks + 1)}


def require_equal_width(student_size: int, teacher_size: int) -> None:
    """Refuse hidden states of different width, which have no difference to square.

    Raises:
        ModelError: naming both widths.
    """
    if student_size != teacher_size:
        raise ModelError(
            f"hidden_mse: hidden sizes {student_size} (student) and {teacher_size} (teacher) "
            "differ; it compares equal widths only (a learned projection between widths comes with "
            "a later method); remove the term or use a student of the teacher's width"
        )


def hidden_mse(
    student: Sequence[Float[Tensor, "B T D"]],
    teacher: Sequence[Float[Tensor, "B T D"]],
    attention_mask: Int[Tensor, "B T"],
    layer_map: LayerMap,
) -> Float[Tensor, " B"]:
    """Squared difference of mapped hidden states, mean over pairs and dimensions, summed over each
    example's real tokens.

    Law: 0 at equality, never negative, and blind to what stands in the padding. Gradient reaches
    the student only.
    Source: Jiao et al., "TinyBERT" (2020), equation 8, with padding excluded.
    """
    real_BT1 = attention_mask.bool().unsqueeze(-1)
    sums: list[Tensor] = []
    for student_index, teacher_index in layer_map.items():
        student_BTD, teacher_BTD = student[student_index], teacher[teacher_index].detach()
        # Padding may hold anything, infinity included: it is cut out before the square, not
        # multiplied away.
        difference = torch.where(real_BT1, student_BTD - teacher_BTD, 0)
        sums.append(difference.square().mean(dim=-1).sum(dim=-1))
    return torch.stack(sums).mean(dim=0)
