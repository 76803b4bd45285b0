"""Tiny models quantized and exported for real, once a test session: for tests of whatever is
deployed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import tiny
from attar.data.config import FilesData
from attar.export.config import ExportStep, Parity
from attar.progress import Progress
from attar.quantization.config import QuantizeStep
from attar.step import StepContext
from attar.tasks.task import Task
from made_once import made_once

LABELS = ("bad", "good")
MAX_LENGTH = 48
"""Less than the model's 64 positions: who cuts elsewhere answers otherwise."""
LENIENT = Parity(examples=48, max_relative_error=10.0, max_label_flips=1.0)
"""A random model answers almost the same to every text: its labels flip at a breath."""


def write_data(folder: Path, *, pairs: bool = False, rows: int = 64) -> None:
    """Texts of many lengths over the tiny tokenizer's words, with labels that follow from them."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [word for word in tiny.WORDS if not word.startswith("#")]
    for split, offset in (("train", 0), ("validation", 1000)):
        lines = []
        for row in range(offset, offset + rows):
            chosen = [
                words[(row * 7 + i * (row % 5 + 1)) % len(words)] for i in range(row % 17 + 1)
            ]
            line: dict[str, Any] = {"text": " ".join(chosen), "label": LABELS[row % 2]}
            if pairs:
                line["second"] = " ".join(reversed(chosen))
            lines.append(json.dumps(line))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def context_for(root: Path, name: str, inputs: dict[str, Path]) -> StepContext:
    """A step's surroundings, with the data of `write_data` under the names "texts" and "pairs"."""
    if not (root / "texts").is_dir():
        write_data(root / "texts", pairs=True)
    folder = root / name
    folder.mkdir(parents=True)
    return StepContext(
        name=name,
        folder=folder,
        scratch=root / f".{name}",
        inputs=inputs,
        data={
            name: FilesData(path="texts", text=columns, label_names=LABELS)
            for name, columns in (("texts", "text"), ("pairs", ["text", "second"]))
        },
        recipe_folder=root,
        progress=Progress(quiet=True),
        recipe={"name": "tiny", "data": {"texts": {}}, "steps": {}},
    )


def fine_tuned(
    root: Path,
    *,
    objective: str = "classification",
    labels: tuple[str, ...] = LABELS,
    spread: float = 8.0,
    uneven_norms: bool = False,
    blocks: int = 2,
) -> Path:
    """A random tiny classifier, written as a train step writes it.

    Args:
        spread: factor on the head, so that answers differ between texts.
        uneven_norms: γ and β of their own in every channel, as training leaves them.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from attar.models.load import load_model, save_model

    labels = labels if objective == "classification" else ()
    folder = root / "model"
    tiny.write_tiny_bert(folder, num_labels=max(len(labels), 1), blocks=blocks)
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    for tensor_name in tensors:
        if tensor_name.endswith(".weight") and "LayerNorm" not in tensor_name:
            tensors[tensor_name] = tensors[tensor_name] * spread
        elif uneven_norms and "LayerNorm" in tensor_name:
            tensors[tensor_name] = tensors[tensor_name] + 0.4 * torch.randn(
                tensors[tensor_name].shape
            )
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = dict(enumerate(labels or ("score",)))
    config["label2id"] = {name: i for i, name in config["id2label"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    task = Task(
        objective=objective,  # pyright: ignore[reportArgumentType]
        label_names=labels,
        max_length=MAX_LENGTH,
        input_names=("input_ids", "attention_mask", "token_type_ids"),
        metrics=("accuracy",) if labels else ("pearson",),
    )
    save_model(load_model(folder, task=task), folder)
    return root


def quantized(root: Path, source: Path, *, bits: int = 8, name: str = "", **settings: Any) -> Path:
    """What `quantize` publishes for the model of `source`; settings as of `quantize_step`."""
    return quantize_step(root, source, bits=bits, name=name, **settings)[0]


def quantize_step(
    root: Path, source: Path, *, bits: int = 8, name: str = "", **settings: Any
) -> tuple[Path, dict[str, Any]]:
    """What `quantize` publishes, and its metrics.

    Args:
        settings: of the step; `method` and the calibration have defaults.
    """
    from attar.quantization.run import quantize

    context = context_for(root, name or f"int{bits}", {"float": source})
    calibration = {"data": "texts", "examples": 32}
    widths = {"weight_bits": bits, "activation_bits": bits}
    config = TypeAdapter(QuantizeStep).validate_python(
        {"model": "float", "method": "minmax", "calibration": calibration, **widths, **settings}
    )
    return context.folder, quantize(config, context)


def exported(
    root: Path, name: str, source: Path, form: str, parity: Parity = LENIENT, **settings: Any
) -> tuple[Path, dict[str, Any]]:
    """What `export` publishes, and its metrics."""
    from attar.export.run import export

    context = context_for(root, name, {"source": source})
    settings = {"data": "texts", **settings, "model": "source", "format": form, "parity": parity}
    config = ExportStep(**settings)
    return context.folder, export(config, context)


class Deployments:
    """One tiny model in all its forms, each made when a process of the tests first asks for it.
    Read-only by agreement."""

    def __init__(self, root: Path) -> None:
        self._root = root
        made_once(root, "data", lambda: write_data(root / "texts", pairs=True))
        self.float = self._once("float", lambda: fine_tuned(root / "float"))
        self.uneven = self._once("uneven", lambda: fine_tuned(root / "uneven", uneven_norms=True))
        self.uneven_int8 = self._once(
            "uneven-int8", lambda: quantized(root, self.uneven(), name="uneven-int8")
        )
        self.os_plus = self._once(
            "os_plus",
            lambda: quantized(root, self.uneven(), name="os_plus", transform="os_plus"),
        )
        """A shift and a factor on every shortcut."""
        self.score = self._once("score", lambda: fine_tuned(root / "score", objective="regression"))
        self.int8 = self._once("int8", lambda: quantized(root, self.float()))
        self.int4 = self._once("int4", lambda: quantized(root, self.float(), bits=4))

    def export(self, source: str, form: str) -> tuple[Path, dict[str, Any]]:
        return self._exported(f"{source}-{form}", source, form)

    def pairs(self) -> tuple[Path, dict[str, Any]]:
        """A model that reads two texts, as its data says, in OpenVINO."""
        return self._exported("pairs", "float", "openvino", data="pairs")

    def four_bit_kernel(self, form: str) -> tuple[Path, dict[str, Any]]:
        name = f"int4-kernel-{form}"
        return self._exported(name, "int4", form, weight_storage="int4_kernel")

    def _exported(
        self, name: str, source: str, form: str, **settings: Any
    ) -> tuple[Path, dict[str, Any]]:
        model = getattr(self, source)()

        def make() -> tuple[str, dict[str, Any]]:
            folder, metrics = exported(self._root, name, model, form, **settings)
            return str(folder), metrics

        folder, metrics = made_once(self._root, name, make)
        return Path(folder), metrics

    def _once(self, name: str, make: Callable[[], Path]) -> Callable[[], Path]:
        return lambda: Path(made_once(self._root, name, lambda: str(make())))
