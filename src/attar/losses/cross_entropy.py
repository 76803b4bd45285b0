"""The loss against the gold label: cross-entropy for classes, squared error for a score.

    classes:  −log softmax(z)[label]        score:  (z − label)²

Summed per example; an example without a label adds exactly 0 and sends back no gradient. Left out:
class weights and label smoothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from attar.losses.targets import UNLABELLED, is_labelled


def cross_entropy(logits: Float[Tensor, "B C"], labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Negative log-likelihood of the gold class of each example, in nats; 0 where there is no
    label.

    Example:
        >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item() == torch.tensor(4.0).log()
        tensor(True)
    """
    return functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="none")


def squared_error(logits: Float[Tensor, "B 1"], scores: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """(prediction − score)² of each example, in the score's unit squared; 0 where there is none."""
    labelled = is_labelled(scores)
    prediction_B = logits[:, 0]
    # The target is replaced before the subtraction: masking a NaN afterwards leaves NaN in the
    # gradient.
    error_B = prediction_B - torch.where(labelled, scores, 0).to(prediction_B.dtype)
    return torch.where(labelled, error_B.square(), 0)
