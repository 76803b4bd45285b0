"""What tests of equivalent transforms share: settings, random transforms, float64 outputs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

import tiny

EXACT = 1e-9
"""Largest relative change of an output in float64 that counts as none."""
SILENT, FLIPPED = (0, 7), (3, 11)
"""Channels of a norm whose γ is 0 or negative."""


def context(folder: Path, *, seed: int = 0) -> Any:
    from attar.progress import Progress
    from attar.step import StepContext

    return StepContext(
        name="int8",
        folder=folder,
        scratch=folder,
        inputs={},
        data={},
        recipe_folder=folder,
        progress=Progress(quiet=True),
        seed=seed,
    )


def settings(**changes: Any) -> Any:
    from attar.quantization.config import MinmaxStep

    return MinmaxStep.model_validate({"model": "m", "calibration": {"data": "d"}, **changes})


def random_transforms(model: PreTrainedModel, seed: int = 0) -> dict[str, Any]:
    """Scales from e⁻² to e², some negative, and shifts where there is somewhere for them to go; at
    every norm whose readers are all known."""
    from attar.models.structure.anatomy import anatomy_of
    from attar.quantization.transforms.equivalent import EquivalentTransform

    generator = torch.Generator().manual_seed(seed)
    made = {}
    for site in (site for site in anatomy_of(model).norm_sites if site.is_closed):
        draws = torch.randn(3, site.norm.weight.numel(), generator=generator, dtype=torch.float64)
        scale = draws[0].clamp(-2, 2).exp() * draws[1].sign()
        made[site.norm.fqn] = EquivalentTransform(scale, draws[2] * site.can_shift)
    return made


def with_odd_gammas(model: PreTrainedModel) -> PreTrainedModel:
    """Channels of γ = 0, γ ≈ 1e-9 and γ < 0 in every norm."""
    from attar.models.structure.anatomy import anatomy_of

    with torch.no_grad():
        for site in anatomy_of(model).norm_sites:
            gamma = site.norm.weight.clone()
            gamma[SILENT[0]], gamma[SILENT[1]] = 0.0, 1e-9
            gamma[list(FLIPPED)] = -gamma[list(FLIPPED)].abs()
            site.norm.set_weight_(gamma)
    return model


def outputs(model: PreTrainedModel, batch: dict[str, Tensor] | None = None) -> Tensor:
    """Logits of a tiny batch in float64; `model` stays float32."""
    found = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        return found(**(batch or tiny.tiny_batch())).logits


def change(before: Tensor, after: Tensor) -> float:
    return float((before - after).abs().max() / before.abs().max())
