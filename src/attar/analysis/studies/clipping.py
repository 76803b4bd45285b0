"""`clipping`: how much of the largest values a model does without.

The outputs of one kind of site are cut to −c … c in the float model, everywhere at once, and the
metric is measured. The clipping values are those that leave a share of the kind's tokens whole:

    c(share) = quantile over the tokens of all blocks of max_j |x_tj|, at share

A token is clipped when one of its values is; of probabilities, a pair (query, key) stands for a
token and its values are the heads'. One c for all blocks, so that the shares of clipped
tokens differ from block to block.
Source: Outlier Suppression (Wei et al. 2022), table 13, whose clipping values are chosen by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attar.analysis.config import ClippingStep
from attar.analysis.judging import open_head_judge
from attar.analysis.study import Finding
from attar.analysis.subject import Subject, open_subject
from attar.errors import UsageError, did_you_mean
from attar.models.structure.ports import inserted
from attar.models.structure.sites import Site, sites_of
from attar.step import StepContext


class _Clip(nn.Module):
    """Cuts a tensor to −limit … limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-self.limit, self.limit)


class _Peaks:
    """max_j |x_j| of every token, (N,)."""

    def __init__(self) -> None:
        self.pieces: list[Tensor] = []

    def see(self, values: Tensor) -> None:
        self.pieces.append(values.abs().amax(dim=1))

    @property
    def values(self) -> Tensor:
        return torch.cat(self.pieces)


def clipping(config: ClippingStep, context: StepContext) -> Finding:
    """The metric and the share of clipped tokens of each block, at each clipping value.

    Raises:
        UsageError: a kind that the model does not have.
    """
    subject = open_subject(config, context, shows_probabilities=True)
    of_kind = {kind: _sites_of_kind(subject, kind) for kind in config.kinds}
    judge = open_head_judge(config, subject)
    peaks = {site: _Peaks() for sites in of_kind.values() for site in sites}
    subject.watch({site: each.see for site, each in peaks.items()}, "largest values of tokens")
    plain = judge.value(subject.model, "float")
    rows: list[dict[str, Any]] = []
    for kind, sites in of_kind.items():
        # numpy's quantile: torch's takes 2^24 values at most, and probabilities are more
        everything = torch.cat([peaks[site].values for site in sites]).numpy()
        shares = sorted(config.shares, reverse=True)
        for share, limit in zip(shares, np.quantile(everything, shares).tolist(), strict=True):
            with inserted(subject.model, {site: _Clip(limit) for site in sites}):
                value = judge.value(subject.model, f"{kind} cut at {limit:.3g}")
            clipped = [float((peaks[site].values > limit).double().mean()) for site in sites]
            rows.append(
                {
                    "kind": kind,
                    "tokens_whole": share,
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
    cells = {f"{row['kind']}_{row['tokens_whole']:g}": row["value"] for row in rows}
    return Finding(facts, {"rows": rows}, {"values": cells})


def _place(site: Site) -> str:
    """The site's block with the initial of its stack, such as e3; its kind outside the blocks."""
    return site.kind if site.block is None else f"{site.stack[0]}{site.block}"


def _sites_of_kind(subject: Subject, kind: str) -> list[Site]:
    sites = sites_of(subject.model)
    found = [site for site in sites if site.kind == kind]
    if not found:
        known = list(dict.fromkeys(site.kind for site in sites))
        raise UsageError(
            f"kinds names {kind!r}, and the model has no such site{did_you_mean(kind, known)}; its "
            f"kinds are {', '.join(known)}"
        )
    return found
