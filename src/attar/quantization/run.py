"""The step `quantize`: quantizes a fine-tuned model and measures the loss of precision.

    transform (moves scales between layers) → weights → integers  ·  calibration (one float pass)
    → ranges → grids → refinement (by gradient)
    → model/ with qparams.json and weights.safetensors

The metrics include the measured SQNR in dB of every weight, of every site, and of the logits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel

from attar.artifacts import write_json
from attar.data.load import data_of
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError, UsageError
from attar.models.load import LoadedModel, load_model, save_config, write_reader
from attar.models.simulated.packing import size_mib, write_tensors
from attar.models.simulated.qparams import ModelQParams
from attar.models.sources.references import resolve_model
from attar.models.structure.channel_factors import factored_activations
from attar.models.structure.plain_linears import use_linears_
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.shortcuts import restored_norms
from attar.models.structure.sites import sites_of
from attar.numerics.agreement import SqnrSum, finite_or_none, sqnr_db
from attar.quantization.calibration.calibrate import Batch, site_sqnr
from attar.quantization.calibration.texts import calibration_texts
from attar.quantization.config import PercentileStep, QatStep, QuantizeMetrics, QuantizeSettings
from attar.quantization.learning.job import check_qat
from attar.quantization.method import Problem, Solution
from attar.quantization.methods import method_of, name_of
from attar.quantization.precision.allocate import check_budget, plan_bits
from attar.quantization.ranges.percentile import validation_judge
from attar.quantization.solve import prepare_, simulated, solve
from attar.quantization.weights.nearest import QuantizedWeights
from attar.step import StepContext
from attar.training.objectives.quoted import with_threshold


def quantize(config: QuantizeSettings, context: StepContext) -> QuantizeMetrics:
    """Quantize `config.model` and write the artifact `model/` and `calibration.json`.

    Returns: the step's metrics.
    Raises:
        ModelError: the model is not fine-tuned, of an unknown family, or not finite.
        DataError: too few calibration examples.
        UsageError: a setting does not apply to the model or its data.
    """
    loaded = _load_float(config, context)
    held_out = check_budget(config, loaded, context)
    if isinstance(config, QatStep) and config.refine:
        check_qat(config, loaded, context)
    batches = _calibration_batches(config, loaded, context)
    problem, moved = prepare_(config, loaded, batches, context)
    planned: dict[str, Any] = {}
    if config.budget is not None:
        plan, planned["budget"] = plan_bits(problem, held_out)
        problem = replace(problem, plan=plan)
    problem, solution = solve(problem)
    plan, calibration = problem.plan, problem.calibration
    qparams = ModelQParams(
        family=loaded.model.config.model_type,
        method=name_of(config),
        bits=plan.bits,
        sites=tuple(solution.grids),
        weights=solution.weights.entries,
        tied=dict(solution.weights.tied),
        float_tensors=tuple(sorted(plan.float_tensors)),
        transformed=restored_norms(loaded.model),
        factored=factored_activations(loaded.model),
    )
    folder = context.folder / "model"
    validated = solution.details.get("training", {}).get("validation", {})
    _write(folder, with_threshold(loaded, validated), qparams, solution.weights)
    metrics = {
        "method": name_of(config),
        **{f"{sort}_bits": bits for sort, bits in qparams.mean_bits.items()},
        "num_sites": len(solution.grids),
        "transform": moved,
        "weight_rule": method_of(config).weights_of(config),
        **solution.details,
        **planned,
        "calibration": {
            "examples": calibration.num_examples,
            "batches": len(batches),
            "tokens": calibration.num_tokens,
            "seconds": calibration.seconds,
        },
        **_losses(problem, solution),
        "size_mib": size_mib(folder),
    }
    return cast(QuantizeMetrics, metrics)


def _load_float(config: QuantizeSettings, context: StepContext) -> LoadedModel:
    folder = resolve_model(config.model, context.inputs, context.recipe_folder)
    loaded = load_model(folder, attention="eager")
    if loaded.task is None:
        raise ModelError(
            f"model {config.model!r} is not fine-tuned: {folder} has no task.json and no head; "
            "fine-tune it with a train step first"
        )
    if problem := loaded.task.kind.only_a_base:
        raise ModelError(f"model {config.model!r} {problem}")
    if problem := config.misfit(loaded.task.kind):
        raise UsageError(f"{context.name}: {problem[1]}")
    sites_of(loaded.model)  # raises for a model without sites, before any text is read
    if isinstance(config, PercentileStep) and config.choose_by == "validation":
        # raises if the validation split cannot be used
        validation_judge(config, loaded.task, loaded.folder, context)
    for note in loaded.notes:
        context.progress.warn(note)
    use_linears_(loaded.model)
    use_attar_attention_(loaded.model)
    return loaded


def _calibration_batches(
    config: QuantizeSettings, loaded: LoadedModel, context: StepContext
) -> Sequence[Batch]:
    """Batches of the chosen training texts, whose indices are written to `calibration.json`."""
    settings, task = config.calibration, loaded.task
    assert task is not None
    data = data_of(context, settings.data)
    texts = calibration_texts(
        loaded,
        TextEncoder.from_folder(loaded.folder, task.max_length, task.input_names),
        data,
        context,
        examples=settings.examples,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    write_json(
        context.folder / "calibration.json",
        {"data": settings.data, "split": "train", "seed": texts.seed, "indices": texts.indices},
    )
    return texts.batches


def _write(
    folder: Path, loaded: LoadedModel, qparams: ModelQParams, weights: QuantizedWeights
) -> None:
    """Write the model folder: unchanged config, tokenizer and task, and integer weights."""
    folder.mkdir(parents=True)
    model_config = copy.deepcopy(loaded.model.config)
    model_config.architectures = [type(loaded.model).__name__]
    save_config(model_config, folder)
    write_reader(loaded, folder)
    qparams.write(folder)
    write_tensors(folder, qparams, weights.integers, weights.scales, weights.floats)


def _of_weights(
    problem: Problem, weights: QuantizedWeights, quantized: PreTrainedModel
) -> Iterator[float]:
    """SQNR in dB of each quantized weight, rounded or trained, with respect to the float weight."""
    floats, found = (dict(m.named_parameters()) for m in (problem.model, quantized))
    return (sqnr_db(floats[entry.fqn], found[entry.fqn]) for entry in weights.entries)


def _losses(problem: Problem, solution: Solution) -> dict[str, Any]:
    """SQNR in dB of each site, of each weight, and of the logits."""
    grids, weights, calibration = solution.grids, solution.weights, problem.calibration
    of_sites = site_sqnr(problem.model, grids, calibration)
    quantized = simulated(problem.model, weights)
    of_logits = SqnrSum()
    given_logits = calibration.quantized_logits(quantized, grids)
    for float_given, given in zip(calibration.logits, given_logits, strict=True):
        of_logits.add(float_given, given)
    finite = [db for db in of_sites.values() if math.isfinite(db)]
    return {
        "sites": {
            grid.name: {
                **grid.model_dump(exclude={"fqn", "port"}),
                "low": grid.low,
                "high": grid.high,
                "sqnr_db": finite_or_none(of_sites[grid.name]),
            }
            for grid in grids
        },
        "weights": {
            entry.fqn: {"bits": entry.bits, "sqnr_db": finite_or_none(db)}
            for entry, db in zip(
                weights.entries, _of_weights(problem, weights, quantized), strict=True
            )
        },
        "mean_sqnr_db": sum(finite) / len(finite) if finite else None,
        "logits_sqnr_db": finite_or_none(of_logits.db),
    }
