"""`outliers`: the hidden dimensions that stand out, at each norm and through the depth of a model.

A few dimensions carry far larger values than the rest, in the same position in block after block;
one grid for the whole tensor is then as coarse as they demand. Each norm's dimensions are counted
by a criterion (`criteria`); a dimension is *recognised k times* when it is an outlier of k norms.
Stacks are told apart, because an encoder's and a decoder's outliers are different ones.

Left out: the criteria that look at single tokens (massive activations) and at tails (kurtosis).
Source: Outlier Suppression (Wei et al. 2022), figures 9 and 11; EOFD (2025), appendix H.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from attar.analysis.config import OutliersStep
from attar.analysis.criteria import deviations, outlying, reads_texts
from attar.analysis.norms import PlacedNorm, norms_of
from attar.analysis.study import Finding
from attar.analysis.subject import open_subject
from attar.models.structure.sites import Site
from attar.step import StepContext


def outliers(config: OutliersStep, context: StepContext) -> Finding:
    """Outlier dimensions of every norm, and how many norms and blocks share each.

    Returns: `metrics.outliers`: stack → norm → dimensions, the farthest first.
    """
    subject = open_subject(config, context)
    norms = norms_of(subject.model)
    off = deviations(config.criterion, norms, subject)
    found = {norm.site: outlying(off[norm.site]) for norm in norms}
    shared = shared_dimensions(norms, found, off)
    by_stack: dict[str, dict[str, list[int]]] = {}
    for norm in norms:
        by_stack.setdefault(norm.site.stack, {})[norm.site.fqn] = found[norm.site]
    rows = [
        {
            **norm.place,
            "dimensions": found[norm.site],
            "deviations": {
                str(row["dimension"]): float(off[norm.site][row["dimension"]])
                for row in shared
                if row["stack"] == norm.site.stack
            },
        }
        for norm in norms
    ]
    facts: dict[str, Any] = {"criterion": config.criterion, "hidden_size": len(norms[0].gamma)}
    if reads_texts(config.criterion):
        facts |= {"examples": subject.num_examples, "tokens": subject.num_tokens}
    return Finding(facts, {"rows": rows, "shared": shared}, {"outliers": by_stack})


def shared_dimensions(
    norms: Sequence[PlacedNorm],
    found: Mapping[Site, Sequence[int]],
    off: Mapping[Site, Tensor],
) -> list[dict[str, Any]]:
    """One row a stack and outlier dimension: in how many norms and blocks it is one, those of most
    norms first.
    """
    rows: list[dict[str, Any]] = []
    for stack in dict.fromkeys(norm.site.stack for norm in norms):
        sites = [norm.site for norm in norms if norm.site.stack == stack]
        blocks = {site.block for site in sites} - {None}
        for dimension in sorted({j for site in sites for j in found[site]}):
            having = [site for site in sites if dimension in found[site]]
            rows.append(
                {
                    "stack": stack,
                    "dimension": dimension,
                    "norms": len(having),
                    "of_norms": len(sites),
                    "blocks": len({site.block for site in having} - {None}),
                    "of_blocks": len(blocks),
                    "largest_deviation": max(float(off[site][dimension]) for site in having),
                }
            )
    return sorted(rows, key=lambda r: (r["stack"] != "encoder", -r["norms"], r["dimension"]))
