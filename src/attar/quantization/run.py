"""The step `quantize`: a fine-tuned model in, the same model in few bits out.

    weights → integers (no data)  ·  calibration (one float pass)  ·  method → ranges → grids
    → model/ with qparams.json and weights.safetensors, and what was lost where

What was lost is measured, not assumed: decibels for every weight and site, and for the logits.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from attar.artifacts import write_json
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError
from attar.models.load import LoadedModel, load_model
from attar.models.simulated.packing import size_mib, write_tensors
from attar.models.simulated.qparams import Bits, ModelQParams, SiteQParams
from attar.models.sources.references import resolve_model
from attar.models.sources.safe_files import TOKENIZER_FILES
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.sites import family_of, sites_of
from attar.numerics.agreement import sqnr_db
from attar.quantization.calibration import (
    Batch,
    Calibration,
    calibrate,
    choose_examples,
    grids_of,
    length_sorted,
    site_sqnr,
    to_tensors,
)
from attar.quantization.config import MinmaxStep, PercentileStep
from attar.quantization.method import Method
from attar.quantization.minmax import minmax
from attar.quantization.percentile import percentile
from attar.quantization.weights import QuantizedWeights, put_on_grid_, quantize_weights
from attar.step import StepContext

METHODS: dict[str, Method] = {
    "minmax": minmax,
    "percentile": percentile,
}

AnyQuantizeStep = MinmaxStep | PercentileStep


def quantize(config: AnyQuantizeStep, context: StepContext) -> dict[str, Any]:
    """Quantize `config.model` and write the artifact `model/` and `calibration.json`.

    Returns: the step's metrics.
    Raises:
        ModelError: the model is not fine-tuned, of an unknown family, or not finite.
        DataError: too few calibration examples.
    """
    loaded = _load_float(config, context)
    batches = _calibration_batches(config, loaded, context)
    bits = Bits(
        weight=config.weight_bits,
        embedding=config.embedding_bits or config.weight_bits,
        activation=config.activation_bits,
    )
    weights = quantize_weights(loaded.model, bits)
    on_grid = copy.deepcopy(loaded.model)
    put_on_grid_(on_grid, weights)
    calibration = calibrate(loaded.model, sites_of(loaded.model), batches, context)
    chosen = METHODS[config.method](config, calibration, on_grid)
    grids = grids_of(chosen.ranges, config.activation_bits)
    qparams = ModelQParams(
        family=family_of(loaded.model),
        method=config.method,
        bits=bits,
        sites=tuple(grids),
        weights=weights.entries,
        tied=dict(weights.tied),
    )
    folder = context.folder / "model"
    _write(folder, loaded, qparams, weights)
    return {
        "method": config.method,
        "weight_bits": bits.weight,
        "activation_bits": bits.activation,
        "embedding_bits": bits.embedding,
        "num_sites": len(grids),
        **chosen.details,
        "calibration": {
            "examples": calibration.num_examples,
            "batches": len(batches),
            "tokens": calibration.num_tokens,
            "seconds": calibration.seconds,
        },
        **_losses(loaded.model, on_grid, grids, weights, calibration),
        "size_mib": size_mib(folder),
    }


def _load_float(config: AnyQuantizeStep, context: StepContext) -> LoadedModel:
    folder = resolve_model(config.model, context.inputs, context.recipe_folder)
    loaded = load_model(folder, attention="eager")
    if loaded.task is None:
        raise ModelError(
            f"model {config.model!r} is not fine-tuned: {folder} has no classification head; "
            "fine-tune it with a train step first"
        )
    for note in loaded.notes:
        context.progress.warn(note)
    use_attar_attention_(loaded.model)
    return loaded


def _calibration_batches(
    config: AnyQuantizeStep, loaded: LoadedModel, context: StepContext
) -> Sequence[Batch]:
    """The chosen training texts as batches; which ones is written to `calibration.json`."""
    settings, task = config.calibration, loaded.task
    assert task is not None
    seed = context.seed if settings.seed is None else settings.seed
    data = load_data(
        context.data[settings.data], context.recipe_folder, name=settings.data, seed=context.seed
    )
    train = data.split("train")
    rows = choose_examples(len(train), settings.examples, seed, settings.data)
    encoder = TextEncoder.from_folder(loaded.folder, task.max_length, task.input_names)
    encoded = encoder.encode(train.rows(rows).texts)
    batches = length_sorted(encoded.lengths, settings.batch_size)
    write_json(
        context.folder / "calibration.json",
        {"data": settings.data, "split": "train", "seed": seed, "indices": rows.tolist()},
    )
    return [to_tensors(encoded.batch(batch)) for batch in batches]


def _write(
    folder: Path, loaded: LoadedModel, qparams: ModelQParams, weights: QuantizedWeights
) -> None:
    """The quantized model folder: config, tokenizer and task as they were, weights as integers."""
    folder.mkdir(parents=True)
    model_config = copy.deepcopy(loaded.model.config)
    model_config.architectures = [type(loaded.model).__name__]
    model_config.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (loaded.folder / name).is_file():
            shutil.copyfile(loaded.folder / name, folder / name)
    if loaded.task is not None:
        loaded.task.write(folder)
    qparams.write(folder)
    write_tensors(folder, qparams, weights.integers, weights.scales, weights.floats)


def _losses(
    model: PreTrainedModel,
    on_grid: PreTrainedModel,
    grids: Sequence[SiteQParams],
    weights: QuantizedWeights,
    calibration: Calibration,
) -> dict[str, Any]:
    """What quantization cost: at each site, in each weight, and at the end, in decibels."""
    of_sites = site_sqnr(model, grids, calibration)
    logits = torch.cat(calibration.quantized_logits(on_grid, grids))
    finite = [db for db in of_sites.values() if math.isfinite(db)]
    return {
        "sites": {
            grid.name: {
                "kind": grid.kind,
                "block": grid.block,
                "scale": grid.scale,
                "zero_point": grid.zero_point,
                "quant_min": grid.quant_min,
                "quant_max": grid.quant_max,
                "low": grid.low,
                "high": grid.high,
                "sqnr_db": _plain(of_sites[grid.name]),
            }
            for grid in grids
        },
        "weights": {
            entry.fqn: {"bits": entry.bits, "sqnr_db": _plain(weights.sqnr_db[entry.fqn])}
            for entry in weights.entries
        },
        "mean_sqnr_db": sum(finite) / len(finite) if finite else None,
        "logits_sqnr_db": _plain(sqnr_db(torch.cat(calibration.logits), logits)),
    }


def _plain(db: float) -> float | None:
    """Decibels for JSON, which knows no infinity: null means that nothing was lost."""
    return db if math.isfinite(db) else None
