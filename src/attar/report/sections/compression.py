"""Quantization results per tensor, and results of the export.

Sites are the activation tensors that are quantized; those with the lowest SQNR come first, because
they cause most of the loss. Exports show the agreement of the deployed with the simulated model
(parity) and how many matrix products run in int8 (fusion audit), with the reasons for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.report.reading import Made, number, numbers, table, tables, whole
from attar.report.sections.lineage import bits_word


@dataclass(frozen=True)
class SiteRow:
    name: str
    kind: str
    block: int | None
    sqnr_db: float | None
    """SQNR in dB; None: no error, or not measured."""
    low: float | None
    high: float | None


@dataclass(frozen=True)
class WeightRow:
    name: str
    bits: float | None
    sqnr_db: float | None


@dataclass(frozen=True)
class Quantized:
    name: str
    method: str
    bits: str
    weight_bits: float | None
    activation_bits: float | None
    embedding_bits: float | None
    mean_sqnr_db: float | None
    logits_sqnr_db: float | None
    size_mib: float | None
    calibration: Mapping[str, Any]
    sites: tuple[SiteRow, ...]
    weights: tuple[WeightRow, ...]


@dataclass(frozen=True)
class Exported:
    name: str
    format: str
    size_mib: float | None
    parity: Mapping[str, Any]
    num_matmuls: int | None
    num_int8: int | None
    left_in_float: tuple[tuple[str, str], ...]
    """(name, reason) of every matrix product that does not run in int8."""


def quantizations(made: Sequence[Made]) -> tuple[Quantized, ...]:
    """Every quantize step, with sites and weights sorted by SQNR."""
    return tuple(_quantized(step) for step in made if step.run == "quantize")


def exports(made: Sequence[Made]) -> tuple[Exported, ...]:
    return tuple(_exported(step) for step in made if step.run == "export")


def _quantized(step: Made) -> Quantized:
    figures = step.metrics
    sites = [_site(name, table(site)) for name, site in table(figures.get("sites")).items()]
    weights = [
        WeightRow(name, **numbers(table(weight), "bits", "sqnr_db"))
        for name, weight in table(figures.get("weights")).items()
    ]
    return Quantized(
        name=step.name,
        method=str(figures.get("method", "")),
        bits=bits_word(step),
        **numbers(figures, "weight_bits", "activation_bits", "embedding_bits"),
        **numbers(figures, "mean_sqnr_db", "logits_sqnr_db", "size_mib"),
        calibration=table(figures.get("calibration")),
        sites=tuple(sorted(sites, key=_worst_first)),
        weights=tuple(sorted(weights, key=_worst_first)),
    )


def _site(name: str, site: Mapping[str, Any]) -> SiteRow:
    return SiteRow(
        name=name,
        kind=str(site.get("kind", "")),
        block=whole(site.get("block")),
        **numbers(site, "sqnr_db", "low", "high"),
    )


def _worst_first(row: SiteRow | WeightRow) -> tuple[bool, float, str]:
    return (row.sqnr_db is None, row.sqnr_db or 0.0, row.name)


def _exported(step: Made) -> Exported:
    fusion = table(step.metrics.get("fusion"))
    return Exported(
        name=step.name,
        format=str(step.metrics.get("format", "")),
        size_mib=number(step.metrics.get("size_mib")),
        parity=table(step.metrics.get("parity")),
        num_matmuls=whole(fusion.get("num_matmuls")),
        num_int8=whole(fusion.get("num_int8")),
        left_in_float=tuple(
            (str(item.get("name", "")), str(item.get("reason", "")))
            for item in tables(fusion.get("float"))
        ),
    )
