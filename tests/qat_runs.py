"""The real step `quantize` with a method that trains, on a tiny model, also as a process.

`python qat_runs.py <folder> [setting=json …]` is what a test kills.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "method": "lsq_plus",
    "start": "minmax",
    "model": "float",
    "weight_bits": 4,
    "activation_bits": 4,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "calibration": {"data": "texts", "examples": 16, "batch_size": 8},
}


def prepare(folder: Path) -> Path:
    """A folder with a float model `float/` and data `texts/`: 48 rows, 6 steps an epoch, whose
    class the sentence says.
    """
    import simulated

    simulated.write_float_model(folder / "float")
    (folder / "texts").mkdir()
    for split, count in (("train", 48), ("validation", 12)):
        lines: list[str] = []
        for row in range(count):
            number = row % len(simulated.SENTENCES)
            label = simulated.LABELS[number % 3]
            text = f"{simulated.SENTENCES[number]} {split} {row}"
            lines.append(json.dumps({"text": text, "label": label}))
        (folder / "texts" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def run_qat(
    folder: Path, *, should_stop: Callable[[], bool] = lambda: False, **settings: Any
) -> dict[str, Any]:
    """Run the step as the engine would; its metrics. One thread: tiny tensors want no more."""
    import shutil

    import torch
    from pydantic import TypeAdapter

    from attar.data.config import FilesData
    from attar.progress import Progress
    from attar.quantization.config import QuantizeStep
    from attar.quantization.run import quantize
    from attar.step import StepContext

    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    context = StepContext(
        name="int4",
        folder=folder / "out",
        scratch=folder / "scratch",
        inputs={},
        data={"texts": FilesData(path="texts")},
        recipe_folder=folder,
        progress=Progress(quiet=True),
        should_stop=should_stop,
    )
    config = TypeAdapter(QuantizeStep).validate_python({**SETTINGS, **settings})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return quantize(config, context)
    finally:
        torch.set_num_threads(threads)


def result_of(folder: Path) -> list[bytes]:
    """What must be equal from run to run: grids, weights and history."""
    files = ("model/qparams.json", "model/weights.safetensors", "history.jsonl")
    return [(folder / "out" / file).read_bytes() for file in files]


def history_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result_of(folder)[2].splitlines()]


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[2:])
    run_qat(Path(sys.argv[1]), **{name: json.loads(value) for name, value in given.items()})
