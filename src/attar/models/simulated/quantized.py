"""The simulated model: floats restricted to the values that integers can represent.

Weights are rounded to their grids once, in place; a `Quantizer` at each site rounds the activations
in every forward pass. The output is what an integer runtime computes, up to the order of its float
sums, on any torch device, and differentiable where torch's fake-quantize is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.errors import ArtifactError, ModelError
from attar.models.architecture import building, class_of, config_of, require_memory
from attar.models.load import LoadedModel, prepare_
from attar.models.simulated.packing import read_tensors
from attar.models.simulated.qparams import ModelQParams, SiteQParams
from attar.models.sources.safe_files import read_config
from attar.models.structure.channel_factors import insert_factors_
from attar.models.structure.plain_linears import use_linears_
from attar.models.structure.ports import insert_, inserted, use_attar_attention_
from attar.models.structure.shortcuts import insert_restores_
from attar.models.structure.sites import quantized_weights, sites_of
from attar.tasks.task import TASK_FILE, Task
from attar.untrusted import has_entry


class Quantizer(nn.Module):
    """Per-tensor static fake-quantization with constant parameters.

    The parameters are Python numbers rather than tensors, so that a traced graph has them as
    constants.
    """

    def __init__(self, scale: float, zero_point: int, quant_min: int, quant_max: int) -> None:
        super().__init__()
        self.scale, self.zero_point = scale, zero_point
        self.quant_min, self.quant_max = quant_min, quant_max

    @classmethod
    def of(cls, site: SiteQParams) -> Quantizer:
        return cls(site.scale, site.zero_point, site.quant_min, site.quant_max)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, self.quant_min, self.quant_max
        )

    def extra_repr(self) -> str:
        integers = f"{self.quant_min}..{self.quant_max}"
        return f"scale={self.scale:.6g}, zero_point={self.zero_point}, integers={integers}"


def quantizing(
    model: PreTrainedModel, grids: Sequence[SiteQParams]
) -> AbstractContextManager[None]:
    """Within the context, the model has a `Quantizer` for each grid."""
    return inserted(model, {grid.site: Quantizer.of(grid) for grid in grids})


def load_simulated(model_folder: Path, *, skip_kinds: Collection[str] = ()) -> LoadedModel:
    """Load the quantized model of `model_folder` to run in torch: weights on their grids,
    quantizers at the sites.

    Args:
        skip_kinds: kinds of sites to leave in float, such as those that a runtime does not support.

    Raises:
        ArtifactError: a file is missing, damaged, or does not match the model.
    """
    qparams = ModelQParams.read(model_folder)
    task = Task.read(model_folder) if has_entry(model_folder / TASK_FILE) else None
    model = _empty_model(model_folder, task)
    _insert_transforms_(model, qparams, model_folder)
    _check_fit(model, qparams, model_folder)
    _load_state_(model, read_tensors(model_folder, qparams), model_folder)
    use_attar_attention_(model)
    chosen = [site for site in qparams.sites if site.kind not in skip_kinds]
    insert_(model, {site.site: Quantizer.of(site) for site in chosen})
    return LoadedModel(model.eval(), model_folder, task)


def _empty_model(folder: Path, task: Task | None) -> PreTrainedModel:
    """The architecture in config.json, with uninitialized weights."""
    config = config_of(read_config(folder), str(folder), tokenizer_folder=folder)
    names = config.architectures or []
    if len(names) != 1:
        raise ArtifactError(
            f"{folder / 'config.json'} names architectures {names}; exactly one class of "
            "transformers is needed"
        )
    # the class name implies the head, but not the pooling
    own = task if task is not None and task.kind.embeds else None
    model_class = class_of(config, str(folder), own)
    require_memory(model_class, config, str(folder))
    with torch.random.fork_rng(devices=[]), building(str(folder)):
        model = model_class(config)
    prepare_(model, "eager")
    use_linears_(model)
    return model


def _check_fit(model: PreTrainedModel, qparams: ModelQParams, folder: Path) -> None:
    """Raise if the grids do not match the model: same sites, weights and shapes."""
    faults: list[str] = []
    family = model.config.model_type
    if family != qparams.family:
        faults.append(f"family is {qparams.family!r}, the model's is {family!r}")
    ours, theirs = set(sites_of(model)), {site.site for site in qparams.sites}
    weights, left_float = set(quantized_weights(model)), set(qparams.float_tensors)
    known = weights | {site.name for site in ours}
    faults += [f"float tensor {name} is unknown" for name in left_float - known]
    faults += [f"site {site.name} is unknown" for site in theirs - ours]
    faults += [
        f"site {site.name} has no grid" for site in ours - theirs if site.name not in left_float
    ]
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for weight in qparams.weights:
        if shapes.get(weight.fqn) != weight.shape:
            faults.append(
                f"weight {weight.fqn} is {weight.shape}, the model's {shapes.get(weight.fqn)}"
            )
    named = {weight.fqn for weight in qparams.weights} | set(qparams.tied) | left_float
    faults += [f"weight {name} has no grid" for name in weights - named]
    if faults:
        raise ArtifactError(
            f"qparams.json in {folder} does not fit config.json: {'; '.join(sorted(faults)[:3])}; "
            "quantize the model again"
        )


def _insert_transforms_(model: PreTrainedModel, qparams: ModelQParams, folder: Path) -> None:
    """Insert the factors of transforms, which are loaded with the weights."""
    try:
        insert_restores_(model, qparams.transformed)
        insert_factors_(model, qparams.factored)
    except ModelError as error:
        raise ArtifactError(
            f"qparams.json in {folder} does not fit config.json: {error}; quantize the model again"
        ) from error


def _load_state_(model: PreTrainedModel, tensors: dict[str, Tensor], folder: Path) -> None:
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ArtifactError(
            f"weights.safetensors in {folder} does not fit config.json ({error}); quantize the "
            "model again"
        ) from error
