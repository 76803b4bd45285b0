"""Sparse representations of a teacher's distribution for distillation.

The k most likely ids are not enough. With V = 49,152 and k = 50, 16 % of SmolLM2's mass on novels
is elsewhere; a KL over the k ids alone can be negative, and renormalizing over them does not
constrain the student's tail. There are two ways to represent the tail, of mass P:

    draws     m ids drawn from the teacher's tail, each with mass P/m. For any student,

                  E[−Σ_exact p log q − Σ_draws P/m · log q] = −Σ p log q

              so cross-entropy and its gradient are unbiased, and with Σ p log p so is the KL.
    bucket    the whole tail is one outcome: −Σ_exact p log q − P log Q, where Q is the student's
              mass outside the k ids. This KL is smaller than the KL by P · KL(tail of p‖tail of q):
              a lower bound (data processing inequality), and it is reported as such.

Draws are stratified: draw j is the id at (j + u_j)/m of the tail's cumulative mass, u_j uniform.
This is also unbiased and has less variance than independent draws, because vocabulary ids are
sorted by frequency. u_j is a hash of (seed, key of the row, position of the token, j), so it does
not depend on the order, the batch or the process.

Left out: temperatures other than 1 and divergences weighted by q, which both need all of p.

Letters: N predictions · V vocabulary · k exact ids · m draws · J ids in all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from attar.numerics.distribution_codec import LARGEST_RANGE, Records

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Constants of SplitMix64 (Steele, Lea, Flood, 2014)."""


class SparseDistributions:
    """A teacher's distributions for N predictions.

    Args:
        weights: mass of each id.
        bucket: mass of all other ids as one outcome; None: represented by draws.
        constant: Σ p log p; with a bucket, over the outcomes.
    """

    def __init__(
        self,
        ids: Int[Tensor, "N J"],
        weights: Float[Tensor, "N J"],
        bucket: Float[Tensor, " N"] | None,
        constant: Float[Tensor, " N"],
    ) -> None:
        self.ids, self.weights, self.bucket, self.constant = ids, weights, bucket, constant
        self._logits: Tensor | None = None
        self._log_q: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | Tensor) -> SparseDistributions:
        bucket = None if self.bucket is None else self.bucket[rows]
        return SparseDistributions(self.ids[rows], self.weights[rows], bucket, self.constant[rows])

    def to(self, device: torch.device) -> SparseDistributions:
        bucket = None if self.bucket is None else self.bucket.to(device)
        parts = (self.ids.to(device), self.weights.to(device), bucket, self.constant.to(device))
        return SparseDistributions(*parts)

    def log_q(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """log softmax of a student's logits, cached for all terms."""
        if self._logits is not logits:
            self._logits, self._log_q = logits, torch.log_softmax(logits, dim=-1)
        assert self._log_q is not None
        return self._log_q

    def cross_entropy(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
        """Cross-entropy −Σ p log q of a student's logits, in nats: an unbiased estimate with draws,
        a lower bound with a bucket."""
        log_q_NV = self.log_q(logits)
        weights_NJ = self.weights.to(logits.dtype)
        found_N = -(weights_NJ * log_q_NV.gather(1, self.ids)).sum(1)
        if self.bucket is None:
            return found_N
        tail_N = log_q_NV.scatter(1, self.ids, -torch.inf).logsumexp(1)
        return found_N - self.bucket.to(logits.dtype) * tail_N

    def forward_kl(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
        """Cross-entropy minus the teacher's entropy: an unbiased estimate with draws, which can be
        negative at a token; a lower bound with a bucket."""
        return self.cross_entropy(logits) + self.constant.to(logits.dtype)


class SparseLogits(ABC):
    """Sparse distributions (…, V) in place of a teacher's logits; supports indexing.

    Args:
        shape: shape of the logits.
    """

    shape: Sequence[int]
    is_bound: bool
    """Whether the tail is a bucket, so that losses are lower bounds."""

    @abstractmethod
    def __getitem__(self, index: tuple[Tensor, ...]) -> SparseDistributions:
        """The distributions at N indices."""


def summarized(
    logits: Float[Tensor, "N V"], exact: int, uniforms: Float[NDArray[np.float64], "N m"]
) -> Records:
    """Sparse records of a teacher's logits.

    Args:
        exact: k, at most V.
        uniforms: numbers in [0, 1), one per draw.
    """
    log_p_NV = torch.log_softmax(logits.float(), dim=-1)
    p_NV = log_p_NV.exp()
    constant = (p_NV * log_p_NV.clamp(min=-1e4)).sum(1)  # 0 · −∞ is 0 here
    ids_Nk = p_NV.topk(exact, dim=1, sorted=False).indices.sort(dim=1).values
    cumulative = p_NV.scatter_(1, ids_Nk, 0).cumsum(1)
    tail_N = cumulative[:, -1]
    count = uniforms.shape[1]
    shares = np.add(np.arange(count, dtype=np.float64), uniforms) / max(count, 1)
    below = torch.nextafter(tail_N, torch.zeros_like(tail_N))[:, None]
    places = torch.minimum(_tensor(shares).to(p_NV) * tail_N[:, None], below)
    draws = torch.searchsorted(cumulative, places, right=True).clamp(max=logits.shape[1] - 1)
    found = (ids_Nk, log_p_NV.gather(1, ids_Nk), tail_N, draws, constant)
    return Records(*(each.cpu().numpy() for each in found))


def distributions_of(records: Records, *, is_bucket: bool) -> SparseDistributions:
    """The stored distributions, in float32."""
    p_Nk, count = np.exp(records.log_p), records.draws.shape[1]
    ids, weights, constant = records.ids, p_Nk, records.constant
    if count:
        each = np.broadcast_to((records.tail / count)[:, None], records.draws.shape)
        ids = np.concatenate([ids, records.draws], axis=1)
        weights = np.concatenate([weights, each], axis=1)
    if is_bucket:
        log_tail = np.log(np.maximum(records.tail, np.finfo(np.float32).tiny))
        heads = p_Nk * np.maximum(records.log_p, -LARGEST_RANGE - 60)  # 0 · −∞ is 0 here
        constant = heads.sum(1) + records.tail * log_tail
    return SparseDistributions(
        _tensor(ids),
        _tensor(weights.astype(np.float32)),
        _tensor(records.tail) if is_bucket else None,
        _tensor(constant.astype(np.float32)),
    )


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


def uniforms_of(
    seed: int, keys: NDArray[np.uint64], places: NDArray[np.int64], count: int
) -> Float[NDArray[np.float64], "N m"]:
    """Numbers in [0, 1), a pure function of (seed, key, place, index of the draw).

    Args:
        keys, places: key of the row and position of the token, for each prediction, (N,).
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is intended
        state = _mixed(np.uint64(seed % 2**64) + keys * GOLDEN)
        state = _mixed(state + places.astype(np.uint64) * GOLDEN)
        draws = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
        found = (_mixed(state[:, None] + draws) >> np.uint64(11)).astype(np.float64)
    return found * 2.0**-53


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in FACTORS:
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return state ^ (state >> np.uint64(31))
