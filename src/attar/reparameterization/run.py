"""The step `fold`: merges each feed-forward into one matrix and verifies the outputs.

    load → fold in float64 → compare logits on real texts → write the model

A model whose outputs differ is not published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from attar.data.load import data_of
from attar.errors import GateMissedError, ModelError
from attar.models.cost import num_params
from attar.models.cost_by_part import known_parts
from attar.models.load import LoadedModel, load_model, save_model
from attar.models.sources.references import resolve_model
from attar.reparameterization.config import LARGEST_BLOCK_ERROR, FoldMetrics, FoldStep
from attar.reparameterization.fold import folded
from attar.step import StepContext
from attar.training.first_look import first_look
from attar.training.forward import fed


def fold(config: FoldStep, context: StepContext) -> FoldMetrics:
    """Write the folded model. Its files and the metrics are documented in the contract.

    Raises:
        ModelError: there is nothing to fold, or the model has no task.
        GateMissedError: the outputs of the folded model differ.
    """
    loaded = load_model(resolve_model(config.model, context.inputs, context.recipe_folder))
    task = loaded.task
    if task is None:
        raise ModelError(
            f"model {config.model!r} has no task.json and no head, so there are no logits to "
            "compare; fine-tune it with a train step first"
        )
    for note in loaded.notes:
        context.progress.warn(f"{context.name}: {note}")
    result = folded(loaded.model, fold_norms=config.fold_norms)
    if not result.block_errors and not result.norms:
        context.progress.warn(
            f"{context.name}: the feed-forwards of {config.model!r} ({result.before.variant}) are "
            "not chains of linear layers, so nothing was folded"
        )
    seed = context.seed if config.seed is None else config.seed
    look = first_look(task, data_of(context, config.data), seed, rows=config.examples)
    certificate = _compared(loaded, result.model, look(loaded), context)
    certificate |= {
        "max_relative_difference": config.max_relative_difference,
        "block_error": max(result.block_errors.values(), default=0.0),
        "max_block_error": LARGEST_BLOCK_ERROR,
    }
    _check(config, certificate, context.name)
    save_model(replace(loaded, model=result.model), context.folder / "model")
    tokens = task.max_length
    return {
        "variant": {"from": result.before.variant, "to": result.after.variant},
        "folded": len(result.block_errors),
        "norms_folded": len(result.norms),
        "certificate": certificate,
        "num_params": num_params(result.model),
        "tokens": tokens,
        "parts": {
            "before": known_parts(loaded.model, tokens),
            "after": known_parts(result.model, tokens),
        },
    }


def _compared(
    loaded: LoadedModel,
    smaller: PreTrainedModel,
    batches: Iterator[dict[str, Tensor]],
    context: StepContext,
) -> dict[str, float | int]:
    """The largest difference of logits on real texts, and the largest logit."""
    assert loaded.task is not None
    difference = size = 0.0
    examples = 0
    for batch in batches:
        context.stop_if_asked("a fold")
        inputs = fed(batch, loaded.task.input_names)
        with torch.no_grad():
            before, after = (model(**inputs).logits for model in (loaded.model, smaller))
        difference = max(difference, float((before - after).abs().max()))
        size = max(size, float(before.abs().max()))
        examples += len(inputs["input_ids"])
    relative = difference / size if size else difference
    return {"relative_difference": relative, "largest_logit": size, "examples": examples}


def _check(config: FoldStep, certificate: dict[str, float | int], name: str) -> None:
    """Raise GateMissedError if the outputs of the folded model differ."""
    difference, block = certificate["relative_difference"], certificate["block_error"]
    if difference <= config.max_relative_difference and block <= LARGEST_BLOCK_ERROR:
        return  # False for NaN
    raise GateMissedError(
        f"{name}: the folded model differs from {config.model!r} on {certificate['examples']} "
        f"texts: logits by {difference:.3g} of the largest (at most "
        f"{config.max_relative_difference:g}), a block by {block:.3g} in float64 (at most "
        f"{LARGEST_BLOCK_ERROR:g}); nothing was published. Maps with very large entries lose "
        "digits in float32: train with weight decay, or raise max_relative_difference"
    )
