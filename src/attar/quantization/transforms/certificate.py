"""The certificate of a transformed model: its outputs are unchanged to a relative 1e-9.

Float32 is not precise enough to verify a transform: folding alone changes outputs by 1e-7. So a
copy of the model is converted to float64 and run on real texts, before and after the transform:

    change = max |outputs after − outputs before| / max |outputs before|

The same figure is also given for the float32 model, where it shows the rounding error of folding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.errors import ModelError
from attar.models.structure.anatomy import anatomy_of
from attar.quantization.calibration.outputs import final_states, logits_of
from attar.quantization.transforms.equivalent import EquivalentTransform, apply_, transform_sites

LARGEST_CHANGE = 1e-9
NUM_BATCHES = 2
MOST_TEXTS = 8
"""Maximum number of texts per batch, which is enough to detect an error."""
MOST_ROWS = 512
"""Maximum number of output rows per batch; a language model has one row per token."""


def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Maximum absolute difference of two lists of outputs, relative to the maximum output."""
    # torch's max propagates NaN, unlike Python's
    largest = float(torch.stack([x.abs().max() for x in before]).max())
    changes = [(x - y).abs().max() for x, y in zip(before, after, strict=True)]
    change = float(torch.stack(changes).max())
    return change if largest == 0 else change / largest


def certify_(
    model: PreTrainedModel,
    transforms: Mapping[str, EquivalentTransform],
    batches: Sequence[Mapping[str, Tensor]],
) -> dict[str, Any]:
    """Verify in float64 that `transforms` leave the outputs unchanged, then fold them into `model`.

    Args:
        transforms: name of each site → its transform.
    Returns: the certificate, as plain data.
    Raises:
        ModelError: outputs change by more than a relative 1e-9. `model` is then unchanged.
    """
    chosen = [{n: x[:MOST_TEXTS] for n, x in batch.items()} for batch in batches[:NUM_BATCHES]]
    exact = copy.deepcopy(model).double()
    before, float_before = _outputs(exact, chosen), _outputs(model, chosen)
    _fold_(exact, transforms)
    change = relative_change(before, _outputs(exact, chosen))
    if not change <= LARGEST_CHANGE:
        raise ModelError(
            f"{len(transforms)} equivalent transforms changed the outputs of "
            f"{type(model).__name__} by {change:.3g} in float64, {LARGEST_CHANGE:g} is allowed; "
            'quantize with transform = "none", and report the model'
        )
    _fold_(model, transforms)
    return {
        "largest_change": change,
        "allowed": LARGEST_CHANGE,
        "float32_change": relative_change(float_before, _outputs(model, chosen)),
        "texts": sum(len(batch["input_ids"]) for batch in chosen),
    }


def _fold_(model: PreTrainedModel, transforms: Mapping[str, EquivalentTransform]) -> None:
    for site in transform_sites(anatomy_of(model)):
        if site.name in transforms:
            apply_(model, site, transforms[site.name])


def _outputs(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> list[Tensor]:
    with torch.inference_mode():
        states = [final_states(model, batch)[:MOST_ROWS] for batch in batches]
        return [logits_of(model, rows) for rows in states]
