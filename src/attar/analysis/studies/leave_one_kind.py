"""`leave_one_kind`: which kind of tensor causes the loss of quality.

For each kind (all queries, all GELU outputs, all weights …), it measures what is regained when only
this kind is left in float, and what is lost when only this kind is quantized. All grids are from
one min-max calibration. `weights` is also a kind, so that with no kind quantized, the model is the
float model.
Source: Outlier Suppression (Wei et al. 2022), table 11, for the first measurement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import PreTrainedModel

from attar.analysis.config import LeaveOneKindStep
from attar.analysis.judging import open_head_judge
from attar.analysis.subject import Finding, Subject, open_subject
from attar.models.simulated.qparams import Bits, SiteQParams
from attar.models.simulated.quantized import quantizing
from attar.models.structure.sites import Site, sites_of
from attar.quantization.calibration.calibrate import calibrate, grids_of
from attar.quantization.solve import simulated
from attar.quantization.weights.nearest import quantize_weights
from attar.scoring.judging import Judge
from attar.step import StepContext

WEIGHTS = "weights"


def kinds_of(sites: Iterable[Site | SiteQParams]) -> tuple[str, ...]:
    """Weights, then the kinds of sites in the order of the forward pass."""
    return (WEIGHTS, *dict.fromkeys(site.kind for site in sites))


def num_judgements(model: PreTrainedModel) -> int:
    """Number of evaluations: all kinds, none, each kind alone, and all but each kind.

    Args:
        model: a model of the study's architecture; its weights are not read.

    Raises:
        ModelError: no sites are known for the model.
    """
    return 2 + 2 * len(kinds_of(sites_of(model)))


@dataclass(frozen=True)
class PartlyQuantized:
    """A model in which any set of kinds of tensors can be quantized."""

    judge: Judge
    model: PreTrainedModel
    on_grid: PreTrainedModel
    """The same model with quantized weights."""
    grids: tuple[SiteQParams, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        return kinds_of(self.grids)

    @contextmanager
    def with_quantized(self, kinds: Collection[str]) -> Iterator[PreTrainedModel]:
        """Context manager that gives the model with these kinds quantized."""
        model = self.on_grid if WEIGHTS in kinds else self.model
        with quantizing(model, [grid for grid in self.grids if grid.kind in kinds]):
            yield model

    def value(self, kinds: Collection[str], name: str) -> float:
        """The metric with these kinds quantized."""
        with self.with_quantized(kinds) as model:
            return self.judge.value(model, name)


def partly_quantized(
    config: LeaveOneKindStep, subject: Subject, judge: Judge, context: StepContext
) -> PartlyQuantized:
    """Calibrate the model by min-max and quantize its weights."""
    model = subject.model
    seen = calibrate(model, sites_of(model), subject.batches, context).statistics
    grids = grids_of({site: (s.mean_low, s.mean_high) for site, s in seen.items()}, config.bits)
    weights = quantize_weights(model, Bits(weight=config.bits, embedding=config.bits, activation=8))
    return PartlyQuantized(judge, model, simulated(model, weights), tuple(grids))


def leave_one_kind(config: LeaveOneKindStep, context: StepContext) -> Finding:
    """The metric with each kind left in float, and with only each kind quantized."""
    subject = open_subject(config, context, shows_probabilities=True)
    judge = open_head_judge(config, subject)
    partly = partly_quantized(config, subject, judge, context)
    all_kinds = partly.kinds
    quantized, plain = partly.value(all_kinds, "all quantized"), partly.value((), "float")
    rows = []
    for kind in all_kinds:
        others = [other for other in all_kinds if other != kind]
        left = partly.value(others, f"{kind} in float")
        alone = partly.value([kind], f"{kind} alone")
        rows.append(
            {
                "kind": kind,
                "left_in_float": left,
                "recovered": left - quantized,
                "alone_quantized": alone,
                "lost": plain - alone,
            }
        )
    rows.sort(key=lambda row: -row["recovered"])
    facts = {
        "bits": config.bits,
        "metric": judge.metric,
        "float": plain,
        "quantized": quantized,
        "num_rows": len(judge.labels),
        "examples": subject.num_examples,
    }
    return Finding(facts, {"rows": rows}, {"kinds": {row["kind"]: row for row in rows}})
