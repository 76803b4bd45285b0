"""`site_cosine`: cosine similarity of each site's tensor with its quantized values, worst first.

    cosine = ⟨x, q(x)⟩ / (‖x‖ ‖q(x)‖),   q: the grid of min-max, over all values of real tokens

Sites below 99 % are problematic; in published encoders, these are the outputs of norms and of GELU.
Tensors are quantized one at a time, so errors do not accumulate.
Source: Outlier Suppression (Wei et al. 2022), tables 9 and 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from attar.analysis.config import SiteCosineStep
from attar.analysis.subject import Finding, open_subject
from attar.models.simulated.qparams import SiteQParams
from attar.models.simulated.quantized import Quantizer
from attar.models.structure.sites import sites_of
from attar.numerics.agreement import CosineSum, SqnrSum, finite_or_none
from attar.quantization.calibration.calibrate import calibrate, grids_of
from attar.step import StepContext

PROBLEMATIC = 0.99
"""Threshold below which the paper calls a site problematic."""


class _Meter:
    """Compares a tensor with its quantized values."""

    def __init__(self, grid: SiteQParams) -> None:
        self.quantizer, self.cosine, self.sqnr = Quantizer.of(grid), CosineSum(), SqnrSum()

    def see(self, values: Tensor) -> None:
        rounded = self.quantizer(values)
        self.cosine.add(values, rounded)
        self.sqnr.add(values, rounded)


def site_cosine(config: SiteCosineStep, context: StepContext) -> Finding:
    """Cosine and SQNR of every site at `bits`."""
    subject = open_subject(config, context, shows_probabilities=True)
    seen = calibrate(subject.model, sites_of(subject.model), subject.batches, context).statistics
    grids = grids_of({site: (s.mean_low, s.mean_high) for site, s in seen.items()}, config.bits)
    meters = {grid.site: _Meter(grid) for grid in grids}
    seers: dict[Any, Callable[[Tensor], None]] = {site: m.see for site, m in meters.items()}
    subject.watch(seers, "cosine of sites")
    rows = [
        {
            "site": grid.name,
            "kind": grid.kind,
            "stack": grid.stack,
            "block": grid.block,
            "cosine": meters[grid.site].cosine.cosine,
            "sqnr_db": finite_or_none(meters[grid.site].sqnr.db),
            "low": grid.low,
            "high": grid.high,
        }
        for grid in grids
    ]
    rows.sort(key=lambda row: row["cosine"])
    facts = {
        "bits": config.bits,
        "num_sites": len(rows),
        "num_problematic": sum(row["cosine"] < PROBLEMATIC for row in rows),
        "lowest_cosine": rows[0]["cosine"],
        **subject.reading,
    }
    return Finding(facts, {"rows": rows}, {"sites": {row["site"]: row["cosine"] for row in rows}})
