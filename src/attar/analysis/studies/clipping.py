"""`clipping`: how far the largest values can be clipped without losing quality.

All sites of one kind are clipped to −c … c in the float model, and the metric is measured. Clipping
values are chosen to leave a given share of the kind's tokens unchanged:

    c(share) = quantile over the tokens of all blocks of max_j |x_tj|, at share

`limits` sets clipping values directly, each for one side: x ≤ c for positive c, x ≥ c for negative
c. A token counts as clipped if any of its values is; for attention probabilities, a (query, key)
pair counts as a token whose values are those of the heads. c is the same in all blocks, so the
share of clipped tokens differs between blocks.
Source: Outlier Suppression (Wei et al. 2022), table 13, whose values are chosen by hand: GELU's are
positive, those of norms negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attar.analysis.config import ClippingStep
from attar.analysis.judging import open_head_judge
from attar.analysis.subject import Finding, Subject, open_subject
from attar.errors import UsageError, did_you_mean
from attar.models.structure.ports import inserted
from attar.models.structure.sites import Site, sites_of
from attar.step import StepContext


class _Clip(nn.Module):
    """Clips a tensor to low … high."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class _Peaks:
    """min_j x_j and max_j x_j of every token, (2, N)."""

    def __init__(self) -> None:
        self.pieces: list[Tensor] = []

    def see(self, values: Tensor) -> None:
        self.pieces.append(torch.stack(values.aminmax(dim=1)))

    @property
    def sizes(self) -> Tensor:
        """max_j |x_j|, (N,)."""
        return torch.cat(self.pieces, dim=1).abs().amax(dim=0)

    def beyond(self, low: float, high: float) -> Tensor:
        """Mask of tokens with a value outside low … high, (N,)."""
        lows, highs = torch.cat(self.pieces, dim=1)
        return (lows < low) | (highs > high)


def clipping(config: ClippingStep, context: StepContext) -> Finding:
    """The metric and the share of clipped tokens of each block, at each clipping value.

    Raises:
        UsageError: the model has no sites of this kind.
    """
    subject = open_subject(config, context, shows_probabilities=True)
    of_kind = {kind: _sites_of_kind(subject, kind) for kind in config.kinds}
    judge = open_head_judge(config, subject)
    peaks = {site: _Peaks() for sites in of_kind.values() for site in sites}
    subject.watch({site: each.see for site, each in peaks.items()}, "largest values of tokens")
    plain = judge.value(subject.model, "float")
    rows: list[dict[str, Any]] = []
    cells: dict[str, float] = {}
    for kind, sites in of_kind.items():
        for limit, low, high, share in _cuts(config, [peaks[site] for site in sites]):
            with inserted(subject.model, {site: _Clip(low, high) for site in sites}):
                value = judge.value(subject.model, f"{kind} cut at {limit:.3g}")
            beyond = [peaks[site].beyond(low, high).double() for site in sites]
            clipped = [float(of_site.mean()) for of_site in beyond]
            cells[f"{kind}_{limit if share is None else share:g}"] = value
            whole = 1 - float(torch.cat(beyond).mean()) if share is None else share
            rows.append(
                {
                    "kind": kind,
                    "tokens_whole": whole,
                    "limit": limit,
                    "value": value,
                    "change": value - plain,
                    "clipped": clipped,
                    "blocks": [_place(site) for site in sites],
                }
            )
    facts = {
        "metric": judge.metric,
        "float": plain,
        "num_rows": len(judge.labels),
        **subject.reading,
    }
    return Finding(facts, {"rows": rows}, {"values": cells})


def _cuts(
    config: ClippingStep, peaks: Sequence[_Peaks]
) -> Iterator[tuple[float, float, float, float | None]]:
    """(clipping value, low, high, share) for each clipping value."""
    if config.limits is not None:
        for limit in config.limits:
            low, high = (limit, math.inf) if limit < 0 else (-math.inf, limit)
            yield limit, low, high, None
        return
    # numpy's quantile, because torch's is limited to 2^24 values
    sizes = torch.cat([each.sizes for each in peaks]).numpy()
    shares = sorted(config.shares, reverse=True)
    for share, limit in zip(shares, np.quantile(sizes, shares).tolist(), strict=True):
        yield limit, -limit, limit, share


def _place(site: Site) -> str:
    """The site's block with the initial of its stack, such as e3; outside blocks its kind."""
    return site.kind if site.block is None else f"{site.stack[0]}{site.block}"


def _sites_of_kind(subject: Subject, kind: str) -> list[Site]:
    sites = sites_of(subject.model)
    found = [site for site in sites if site.kind == kind]
    if not found:
        known = list(dict.fromkeys(site.kind for site in sites))
        raise UsageError(
            f"kinds names {kind!r}, but the model has no such site{did_you_mean(kind, known)}; its "
            f"kinds are {', '.join(known)}"
        )
    return found
