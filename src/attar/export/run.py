"""The step `export`: writes a folder for a CPU runtime and verifies it.

    lower and trace → files → parity on real texts → audit of the executed graph → card → hashes

The checks use the written files, opened in the same way as by users. A model that fails the parity
check is not published.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attar.artifacts import disk_errors_explained, write_json
from attar.data.load import data_of
from attar.errors import ModelError, UsageError, did_you_mean
from attar.export.bundle import seal, write_bundle, write_snippet
from attar.export.config import ExportMetrics, ExportStep, packs_floats
from attar.export.float_sites import float_sites
from attar.export.fusion_audit import FusionAudit, audit_onnx, audit_openvino, audit_simulated
from attar.export.lowering import is_quantized
from attar.export.model_card import (
    base_model_of,
    data_of_lineage,
    datasets_of,
    lineage_of,
    write_model_card,
)
from attar.export.onnxruntime import write_onnx
from attar.export.openvino import write_openvino
from attar.export.parity import check_parity, encoded_texts, measure_parity
from attar.export.storage import OPENVINO_WIDTHS
from attar.models.architecture import config_of
from attar.models.cost import Head, cost_from_config
from attar.models.deployed.cpu import int8_flags, needs_unsigned_weights
from attar.models.deployed.runtimes import MODEL_FILES, Deployment, model_size_mib, open_runtime
from attar.models.foreign import task_of
from attar.models.simulated.qparams import ModelQParams
from attar.models.sources.references import find_model_folder, resolve_model
from attar.models.sources.safe_files import read_config
from attar.step import StepContext
from attar.tasks.task import Task

STAGES = 5


def export(config: ExportStep, context: StepContext) -> ExportMetrics:
    """Write the exported folder. Its files and the metrics are documented in the contract.

    Raises:
        GateMissedError: the outputs of the exported model differ too much from the source model's.
        ModelError: the model is not fine-tuned, or its family cannot be exported.
        UsageError: no data for the parity check is given or known.
    """
    model_folder = find_model_folder(
        resolve_model(config.model, context.inputs, context.recipe_folder)
    )
    task = task_of(model_folder)
    if problem := task.kind.only_a_base:
        raise ModelError(f"{model_folder} {problem}")
    if task.has_language_head:
        raise ModelError(
            f"export supports models that predict a class, a score or a vector; {model_folder} "
            f"{task.answers}: evaluate it in torch, from its quantize step"
        )
    texts = _parity_texts(config, context, model_folder, task)
    task = _as_exported(task, len(texts[0]), model_folder)
    folder = context.folder
    qparams = ModelQParams.read(model_folder) if is_quantized(model_folder) else None
    with context.progress.task(f"{context.name}: export", STAGES) as bar:
        write_bundle(model_folder, folder, task)
        _write_model(config, model_folder, folder, task)
        for note in storage_notes(config, qparams):
            context.progress.warn(f"{context.name}: {note}")
        bar.advance(note="written")
        deployment = _seal(config, model_folder, folder, task, qparams)
        bar.advance(note="sealed")
        what = f"{context.name} ({config.format})"
        encoded = encoded_texts(texts, model_folder, folder, task, what)
        runtime = open_runtime(folder)
        left_float = deployment.float_sites
        parity = measure_parity(model_folder, runtime, encoded, task, config.parity, left_float)
        write_json(folder / "parity.json", parity.as_json())
        check_parity(parity, what)
        bar.advance(note="parity holds")
        audit = _audit(config, folder, qparams)
        write_json(folder / "fusion_audit.json", audit.as_json())
        bar.advance(note="audited")
        size_mib = model_size_mib(folder, config.format)
        write_snippet(folder, config.format, task)
        write_model_card(
            folder,
            name=f"{context.recipe.get('name', '')} {context.name}".strip(),
            task=task,
            deployment=deployment,
            parity=parity,
            audit=audit,
            size_mib=size_mib,
            numbers="32-bit floats" if qparams is None else qparams.words,
            lineage=lineage_of(config.model, context.recipe),
            base_model=base_model_of(config.model, context.recipe, context.recipe_folder),
            datasets=datasets_of(config.model, context.recipe),
            data=data_of_lineage(config.model, context.recipe),
        )
        bar.advance(note="described")
    _warn_of_float_products(audit, context)
    return {
        "format": config.format,
        "parity": parity.as_json(),
        "fusion": audit.as_metrics(),
        "size_mib": size_mib,
        "num_params": deployment.num_params,
    }


def _write_model(config: ExportStep, model_folder: Path, folder: Path, task: Task) -> None:
    if config.format == "safetensors":
        write_packed(model_folder, folder)
    elif config.format == "openvino":
        write_openvino(model_folder, folder, task.input_names, storage=config.weight_storage)
    else:
        write_onnx(
            model_folder,
            folder,
            task.input_names,
            signed_weights=not needs_unsigned_weights(),
            storage=config.weight_storage,
        )


def write_packed(model_folder: Path, folder: Path) -> None:
    """Copy the files of the quantized model: weights packed in 2 to 8 bits, and the grids.

    Raises:
        UsageError: the model is not quantized.
        ResourceError: the disk is full.
    """
    if not is_quantized(model_folder):
        raise UsageError(packs_floats(model_folder))
    with disk_errors_explained(folder):
        for name in MODEL_FILES["safetensors"]:
            shutil.copyfile(model_folder / name, folder / name)


def storage_notes(config: ExportStep, qparams: ModelQParams | None) -> list[str]:
    """Notes about weights that are stored with more bits than they have; empty if none."""
    if config.format == "safetensors" or qparams is None:
        return []
    widths = sorted({weight.bits for weight in qparams.weights} - {8})
    if not widths:
        return []
    if config.weight_storage == "int8":
        return [
            f"weights of {', '.join(map(str, widths))} bits are stored as bytes "
            '(weight_storage = "int8"), so the file has the size of 8 bits; '
            'use weight_storage = "packed" for a smaller file'
        ]
    notes: list[str] = []
    wider = {
        bits: next((width for width in OPENVINO_WIDTHS if width >= bits), 8) for bits in widths
    }
    odd = [f"{bits} bits in {width}" for bits, width in wider.items() if bits != width]
    if config.format == "openvino" and odd:
        notes.append(
            f"OpenVINO has integers of {', '.join(map(str, OPENVINO_WIDTHS))} and 8 bits: it "
            f'stores {", ".join(odd)}; use format = "onnxruntime" or "safetensors" for a smaller '
            "file"
        )
    more = [bits for bits in widths if bits > 4]
    if config.weight_storage == "int4_kernel" and more:
        notes.append(
            f"a 4-bit kernel takes at most 4 bits: weights of {', '.join(map(str, more))} bits "
            "are multiplied as bytes"
        )
    return notes


def _seal(
    config: ExportStep,
    model_folder: Path,
    folder: Path,
    task: Task,
    qparams: ModelQParams | None,
) -> Deployment:
    facts: dict[str, Any] = {"precision": "float32"}
    if qparams is not None:
        facts = {"bits": qparams.mean_bits} | (
            {"precision": "simulated", "weight_storage": "packed"}
            if config.format == "safetensors"
            else {
                "precision": "int4" if config.weight_storage == "int4_kernel" else "int8",
                "weight_storage": config.weight_storage,
                "float_sites": float_sites(qparams, config.format),
            }
        )
    return seal(
        folder,
        config.format,
        cost_from_config(
            read_config(model_folder),
            Head(task.num_labels, embedding=task.embedding, kind=task.kind),
        ),
        task.input_names,
        source=config.model,
        cpu={"int8": int8_flags()},
        **facts,
    )


def _audit(config: ExportStep, folder: Path, qparams: ModelQParams | None) -> FusionAudit:
    if config.format == "openvino":
        return audit_openvino(folder, qparams)
    if config.format == "onnxruntime":
        return audit_onnx(folder, qparams)
    return audit_simulated(qparams)


def _warn_of_float_products(audit: FusionAudit, context: StepContext) -> None:
    unexpected = audit.unexpected()
    if unexpected:
        names = ", ".join(product.name for product in unexpected[:3])
        context.progress.warn(
            f"{context.name}: {len(unexpected)} of {len(audit.products)} quantized matrix products "
            f"run in float ({names}); this is correct but slow. int8 instructions of this CPU: "
            f"{', '.join(int8_flags()) or 'none'}"
        )


def _parity_texts(
    config: ExportStep, context: StepContext, model_folder: Path, task: Task
) -> tuple[tuple[str, ...], ...]:
    """The first validation texts of the step's data, or of the data of the model, in the form that
    the model reads."""
    name = config.data or data_of_model(config.model, context.recipe)
    if name is None or name not in context.data:
        known = ", ".join(context.data) or "none"
        raise UsageError(
            f"export compares predictions on real texts, but data {name!r} is not in this recipe "
            f"({known}){did_you_mean(name or '', list(context.data))}; "
            'add data = "<name>" to the step'
        )
    data = data_of(context, name)
    texts = data.split("validation").texts[: config.parity.examples]
    if not texts:
        raise ModelError(f"data {name!r} has no validation texts to compare {model_folder} with")
    if len(texts) < config.parity.examples and "examples" in config.parity.model_fields_set:
        context.progress.warn(
            f"{context.name}: parity.examples is {config.parity.examples}, data {name!r} has "
            f"{len(texts)} validation texts; all of them are used"
        )
    if task.kind.embeds:
        return tuple(dict.fromkeys(task.texts_read(texts)))[: config.parity.examples]
    return tuple(texts)


def _as_exported(task: Task, num_texts: int, model_folder: Path) -> Task:
    """The task of the exported folder, completed with the number of texts per row (from the data,
    if the model's task does not have it) and the dimension of embeddings."""
    if task.num_texts not in (None, num_texts):
        raise ModelError(
            f"{model_folder} reads {task.num_texts} texts per row, but the data of the parity "
            f"check has {num_texts}; use data like that of its training"
        )
    changes: dict[str, Any] = {"num_texts": num_texts}
    if task.embedding is not None and task.embedding.width is None:
        width = config_of(read_config(model_folder), str(model_folder)).hidden_size
        changes["embedding"] = task.embedding.model_copy(update={"width": width})
    return task.model_copy(update=changes)


def data_of_model(model: str, recipe: Mapping[str, Any]) -> str | None:
    """Data that a step of the recipe trained on or was calibrated with; otherwise the only data of
    the recipe."""
    step = recipe.get("steps", {}).get(model, {})
    calibration = step.get("calibration") or {}
    named = step.get("data") or calibration.get("data")
    only = list(recipe.get("data", {}))
    return named or (only[0] if len(only) == 1 else None)
