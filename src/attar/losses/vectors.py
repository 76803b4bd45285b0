"""Losses on vectors of texts: matching pairs, scored pairs, and a teacher's vectors.

A batch holds B rows of two texts; x_i and y_i are the unit vectors of row i, c_ij = x_i · y_j.

    contrastive    −log( exp(c_ii/τ) / Σ_j exp(c_ij/τ) )              j over the rows of the batch
    cosine         (c_ii − score_i / best)²
    vector_mse     ‖s − t‖²              summed over both texts of a row; s the student's, t the
                                         teacher's vector, as the models give them
    similarity_kl  KL(p ‖ q),  p = softmax_j(t_i·t_j/τ), q = softmax_j(s_i·s_j/τ),  j ≠ i over all
                   2B texts of the batch, mean over the row's two texts

In contrastive, a row is not a negative of row i if they share their first or second text, or if its
second text is row i's first: it is left out of the sum. With `widths`, a term is the mean over
vectors truncated to each width (and normalized again), so that the first dimensions carry most of
the meaning (Matryoshka).

contrastive and similarity_kl depend on the whole batch, also with micro-batches: the loop first
computes all vectors without a gradient and with the same dropout masks, and each micro-batch then
evaluates the loss with its own vectors in their place among the others (`Targets.whole`). Its
gradient is the exact partial derivative, and the gradients of the micro-batches add up to the
batch's (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup":
GradCache, which keeps the vectors' gradients instead).

Sources: van den Oord et al. 2018 (arXiv 1807.03748), equation 4; Henderson et al. 2017
(arXiv 1705.00652) for in-batch negatives; Reimers and Gurevych 2019 (arXiv 1908.10084), section 3,
for cosine; Reimers and Gurevych 2020 (arXiv 2004.09813), equation 1, for vector_mse; Kusupati et
al. 2022 (arXiv 2205.13147) for widths.
Shapes: B rows, S = 2 texts of a row, D width of a vector, N rows of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from attar.errors import DataError, ModelError
from attar.losses.config import Contrastive, Cosine, SimilarityKl, VectorLoss, VectorMse
from attar.losses.predictions import divergence
from attar.losses.targets import Outputs, Targets, is_labelled
from attar.losses.term import Needs, Pair, Share, Term

SIDES = 2


def contrastive(
    first: Float[Tensor, "N D"],
    second: Float[Tensor, "N D"],
    temperature: float = 0.05,
    same: Tensor | None = None,
) -> Float[Tensor, " N"]:
    """−log of the probability of each row's own second text, in nats.

    Law: never negative; near 0 if both texts of every row have the same vector and all other rows
    are far away; log N if all vectors are equal.

    Args:
        same: bool (N, N); pairs of rows that are not negatives of each other.

    Example:
        >>> x = torch.ones(4, 3)
        >>> contrastive(x, x).tolist()[0] == torch.tensor(4.0).log()
        tensor(True)
    """
    scores_NN = _unit(first) @ _unit(second).T / temperature
    if same is not None:
        own = torch.eye(len(first), dtype=torch.bool, device=first.device)
        scores_NN = scores_NN.masked_fill(same & ~own, float("-inf"))
    return functional.cross_entropy(
        scores_NN, torch.arange(len(first), device=first.device), reduction="none"
    )


def cosine_error(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], wanted: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """(cosine − wanted)² of each row; 0 if it has no score (NaN)."""
    is_known = is_labelled(wanted)
    cosines = (_unit(first) * _unit(second)).sum(dim=-1)
    # replaced before the subtraction: masking a NaN afterwards would leave NaN in the gradient
    error = cosines - torch.where(is_known, wanted, 0).to(cosines.dtype)
    return torch.where(is_known, error.square(), 0)


def similarity_kl(
    student: Float[Tensor, "M D"], teacher: Float[Tensor, "M E"], temperature: float = 0.05
) -> Float[Tensor, " M"]:
    """KL(teacher‖student) of each text's distribution over the other texts, in nats.

    Law: 0 if the cosines are equal, never negative; independent of the vectors' widths, lengths and
    rotation. Gradient reaches only the student.
    """
    itself = torch.eye(len(student), dtype=torch.bool, device=student.device)
    log_q, log_p = (
        functional.log_softmax(
            (unit @ unit.T / temperature).masked_fill(itself, torch.finfo(unit.dtype).min), dim=-1
        )
        for unit in (_unit(student), _unit(teacher.detach()))
    )
    return divergence(log_p, log_q)


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1)


class VectorTerm(Term):
    """A loss on the vectors of both texts of each row."""

    def __init__(self, config: VectorLoss, objective: str, pair: Pair | None) -> None:
        super().__init__()
        self._config: Any = config

    def forward(
        self, student: Outputs, teacher: Outputs | None, targets: Targets
    ) -> Sequence[Share]:
        own, taught = _sides(student), None if teacher is None else _sides(teacher)
        widths = self._config.widths or (own.shape[-1],)
        if max(widths) > own.shape[-1]:
            raise ModelError(
                f"{self._config.kind}: widths has {max(widths)}, the student's vectors have "
                f"{own.shape[-1]} numbers; lower it"
            )
        found = [self.of_vectors(own[..., :width], taught, targets, width) for width in widths]
        return [Share("prediction", torch.stack(found).mean(dim=0))]

    def of_vectors(
        self, own: Tensor, taught: Tensor | None, targets: Targets, width: int
    ) -> Float[Tensor, " B"]:
        """The loss of each row.

        Args:
            own: (2, B, width), the student's vectors.
            taught: (2, B, E), the teacher's.
        """
        raise NotImplementedError


class ContrastiveTerm(VectorTerm):
    """Retrieval of each row's second text among those of the whole batch."""

    needs = Needs(whole_vectors=True)

    def of_vectors(
        self, own: Tensor, taught: Tensor | None, targets: Targets, width: int
    ) -> Tensor:
        config: Contrastive = self._config
        same_NN = _same_texts(targets)

        def of_all(vectors: Tensor) -> Tensor:
            loss = contrastive(vectors[0], vectors[1], config.temperature, same_NN)
            if not config.symmetric:
                return loss
            turned = None if same_NN is None else same_NN.T
            back = contrastive(vectors[1], vectors[0], config.temperature, turned)
            return (loss + back) / 2

        return _in_whole(of_all, own, targets, width)


class CosineTerm(VectorTerm):
    """Squared difference between the cosine of a row's vectors and its score."""

    def of_vectors(
        self, own: Tensor, taught: Tensor | None, targets: Targets, width: int
    ) -> Tensor:
        config: Cosine = self._config
        if (targets.labels.abs() > config.best_score).any():
            most = float(targets.labels.nan_to_num().abs().max())
            raise DataError(
                f"cosine: a row has the score {most:g}, and best_score is {config.best_score:g}, "
                "the score that maps to cosine 1; set best_score to the highest score"
            )
        return cosine_error(own[0], own[1], targets.labels / config.best_score)


class VectorMseTerm(VectorTerm):
    """Squared difference between the student's and the teacher's vectors."""

    needs = Needs(teacher_logits=True)

    def of_vectors(
        self, own: Tensor, taught: Tensor | None, targets: Targets, width: int
    ) -> Tensor:
        config: VectorMse = self._config
        assert taught is not None
        if taught.shape[-1] < width:
            raise ModelError(
                f"{config.kind}: the student's vectors have {width} numbers, the teacher's "
                f"{taught.shape[-1]}; use similarity_kl, which compares cosines, or widths = "
                f"[{taught.shape[-1]}]"
            )
        wanted = taught[..., :width].detach()
        if config.widths:
            own, wanted = _unit(own), _unit(wanted)
        elif taught.shape[-1] != width:
            raise ModelError(
                f"{config.kind}: the student's vectors have {width} numbers, the teacher's "
                f"{taught.shape[-1]}; use similarity_kl, which compares cosines"
            )
        return (own - wanted).square().sum(dim=(0, 2))


class SimilarityKlTerm(VectorTerm):
    """KL divergence between the similarities of the batch's texts in teacher and student."""

    needs = Needs(teacher_logits=True, whole_vectors=True)

    def of_vectors(
        self, own: Tensor, taught: Tensor | None, targets: Targets, width: int
    ) -> Tensor:
        config: SimilarityKl = self._config
        assert taught is not None
        if targets.whole is not None:
            assert targets.whole.teacher is not None
            taught = _two_sides(targets.whole.teacher)
        teacher = taught.flatten(0, 1)

        def of_all(vectors: Tensor) -> Tensor:
            found = similarity_kl(vectors.flatten(0, 1), teacher, config.temperature)
            return found.view(SIDES, -1).mean(dim=0)

        return _in_whole(of_all, own, targets, width)


def _in_whole(
    of_all: Callable[[Tensor], Tensor], own: Tensor, targets: Targets, width: int
) -> Tensor:
    """The loss of each row of this micro-batch, (B,), in a loss over the whole batch, with the
    gradient of the whole loss with respect to this micro-batch's vectors.

    Args:
        of_all: vectors (2, N, width) → loss of each row, (N,).
        own: (2, B, width), with gradient.
    """
    if targets.whole is None:
        return of_all(own)
    whole, begin = _two_sides(targets.whole.student)[..., :width], targets.whole.begin
    end = begin + own.shape[1]
    added = of_all(torch.cat([whole[:, :begin], own, whole[:, end:]], dim=1))
    # the loss of other rows depends on these vectors too: keep that gradient, but not the value
    others = torch.cat([added[:begin], added[end:]]).sum()
    return added[begin:end] + (others - others.detach()) / own.shape[1]


def _same_texts(targets: Targets) -> Tensor | None:
    """(N, N): whether rows i and j of the whole batch share a first or a second text, or the second
    text of j is the first one of i."""
    texts = targets.texts if targets.whole is None else targets.whole.texts
    if texts is None:
        return None
    shared_NN = (texts[:, :, None] == texts[:, None, :]).any(dim=0)
    return shared_NN | (texts[0][:, None] == texts[1][None, :])


def _sides(outputs: Outputs) -> Tensor:
    """Reshape the vectors of a batch, (2B, D), to (2, B, D), by side."""
    vectors = outputs.logits
    assert isinstance(vectors, Tensor)
    return _two_sides(vectors)


def _two_sides(vectors: Tensor) -> Tensor:
    return vectors.view(SIDES, -1, vectors.shape[-1])
