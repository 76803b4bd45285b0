"""How each token relates to the others, in the student and in the teacher.

The problem: hidden states of other widths and attentions of other head counts cannot be compared
number by number, and a student of another depth has no block to pair with each of the teacher's.
The idea: compare, in one block only, distributions over the tokens of the text, whose number is the
same in both. An attention is one; so is the softmax of the products of any vectors x (queries,
keys, values), cut into R equal heads of size E / R, whatever E is:

    relation_TS = softmax_S( x_T · x_S / √(E/R) )
    sum_B       = Σ_T mask_BT · mean_R KL( teacher's relation_T ‖ student's relation_T )

Only real keys are in the softmax, in a causal stack only those at or before the query.

Shapes: B examples, T queries, S keys, R relation heads, E = heads · head size.
Source: Wang et al., "MiniLM" (2020): attentions and value relations of the last block; "MiniLMv2"
(2021): query, key and value relations of a chosen block of the teacher's.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

UNSEEN = -1e30
"""Score of a key that is not seen: finite, because 0 · (∞ − ∞) is no number; its probability is
exactly 0."""


def relation_scores(vectors: Float[Tensor, "B T E"], heads: int) -> Float[Tensor, "B R T T"]:
    """Products of each token's vectors with those of all tokens, before the softmax.

    Args:
        heads: relation heads R; divides E.
    """
    batch, tokens, _ = vectors.shape
    cut = vectors.view(batch, tokens, heads, -1).transpose(1, 2)
    return cut @ cut.transpose(-1, -2) * cut.shape[-1] ** -0.5


def relation_divergence(
    student: Float[Tensor, "B R T T"],
    teacher: Float[Tensor, "B R T T"],
    seen: Bool[Tensor, "B T T"],
) -> Float[Tensor, " B"]:
    """KL(teacher‖student) of the softmax over the keys that each query sees, mean over the heads,
    summed over each example's real queries; in nats.

    Law: 0 where the scores differ by a constant, never negative, and blind to what is not seen.
    Gradient reaches the student only.

    Args:
        student, teacher: scores before the softmax.
    """
    log_q, log_p = (_log_softmax(scores, seen) for scores in (student, teacher.detach()))
    kl_BRT = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    # Rounding can leave −1e-8 where both agree; a divergence below 0 does not exist.
    return kl_BRT.clamp(min=0).mean(dim=1).sum(dim=-1)


def _log_softmax(scores: Tensor, seen: Tensor) -> Tensor:
    """Over the keys that are seen; of a query that sees none, as padding does, uniform."""
    return torch.where(seen.unsqueeze(1), scores, UNSEEN).log_softmax(dim=-1)
