"""Quantized model folders of tiny models, for every test that opens one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tiny

LABELS = ("docs", "films", "files")
SENTENCES = (
    "open the file and read a list",
    "the movie is not good",
    "how do i sort a list",
    "great film",
    "close the socket to return an error value",
    "write the date and time of the test run",
    "is it a poor movie",
    "map string to number",
)


def write_texts(folder: Path, rows: int = 48) -> Path:
    """A data folder with `train.jsonl` and `validation.jsonl` of short labelled sentences."""
    import json

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", rows), ("validation", 12)):
        lines = []
        for row in range(count):
            words = " ".join(rng.choice(SENTENCES, size=int(rng.integers(1, 3))))
            label = LABELS[row % 3]
            lines.append(json.dumps({"text": f"{words} {name} {row}", "label": label}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_float_model(folder: Path, family: str = "bert", **changes: Any) -> Path:
    """A fine-tuned-looking model folder: random weights, the tests' tokenizer, a task."""
    import json

    from attar.models.load import input_names_of
    from attar.tasks.task import Task

    tiny.write_tokenizer(folder)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    ids = {"pad_token_id": vocab["[PAD]"], "vocab_size": len(vocab)}
    model = tiny.tiny_model(family, **{**ids, **changes})
    model.config.id2label = dict(enumerate(LABELS))
    model.config.label2id = {name: i for i, name in enumerate(LABELS)}
    model.save_pretrained(folder)
    names = input_names_of(model.config)
    Task(objective="classification", label_names=LABELS, max_length=32, input_names=names).write(
        folder
    )
    return folder


@dataclass(frozen=True)
class QuantizedRun:
    """What the step `quantize` made of a tiny model."""

    float_folder: Path
    artifact: Path
    metrics: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.artifact / "model"


def run_quantize(
    root: Path,
    family: str = "bert",
    scratch: Path | None = None,
    objective: str = "classification",
    **settings: Any,
) -> QuantizedRun:
    """Run the real step on a tiny model and tiny data below `root`.

    Args:
        scratch: None: a new one, as for a step that was never begun.
        objective: the data's.
    """
    from pydantic import TypeAdapter

    from attar.data.config import FilesData
    from attar.progress import Progress
    from attar.quantization.config import QuantizeMetrics, QuantizeStep
    from attar.quantization.run import quantize
    from attar.step import StepContext

    float_folder = root / "float"
    if not float_folder.exists():
        write_float_model(float_folder, family)
        write_texts(root / "texts")
    artifact = root / f"int{len(list(root.iterdir()))}"
    artifact.mkdir()
    settings = {"method": "minmax", **settings}
    calibration = {"data": "texts", "examples": 24, "batch_size": 8}
    calibration |= settings.pop("calibration", {})
    context = StepContext(
        name="int8",
        folder=artifact,
        scratch=scratch or root / ".scratch" / artifact.name,
        inputs={"student": float_folder},
        data={
            "texts": FilesData.model_validate({"path": str(root / "texts"), "objective": objective})
        },
        recipe_folder=root,
        progress=Progress(quiet=True),
    )
    config = TypeAdapter(QuantizeStep).validate_python(
        {"model": "student", "calibration": calibration, **settings}
    )
    metrics: dict[str, Any] = {**quantize(config, context)}
    assert metrics.keys() <= QuantizeMetrics.__annotations__.keys()
    return QuantizedRun(float_folder, artifact, metrics)
