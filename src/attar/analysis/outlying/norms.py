"""Every norm of a model with its place: the rows of all studies about norms.

A norm's output is the tensor whose outliers the literature speaks of, whether or not it is a site
that is quantized, so any family with an anatomy can be looked at here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from attar.analysis.outlying.hidden import HiddenState
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.sites import Site, norm_sites_of
from attar.models.structure.views import NormView


@dataclass(frozen=True)
class PlacedNorm:
    """One norm."""

    view: NormView
    site: Site
    """Its output."""

    @property
    def place(self) -> dict[str, Any]:
        """Where it is, for a table."""
        return place_row(self.site)

    @property
    def gamma(self) -> Tensor:
        """γ, (D,), float64."""
        return self.view.weight.detach().double()

    @property
    def beta(self) -> Tensor | None:
        """β, (D,), float64; None in an RMSNorm."""
        bias = self.view.bias
        return None if bias is None else bias.detach().double()


def place_row(place: Site | HiddenState) -> dict[str, Any]:
    """Where a norm or a hidden state is, for a table."""
    return {"norm": place.fqn, "kind": place.kind, "stack": place.stack, "block": place.block}


def norms_of(model: PreTrainedModel) -> list[PlacedNorm]:
    """The norms of a model, stack by stack, in the order of the forward pass.

    Raises:
        ModelError: the family is unknown.
    """
    return [
        PlacedNorm(view, site)
        for stack in anatomy_of(model).stacks
        for view, site in norm_sites_of(stack)
    ]
