"""A real training step on a tiny model and a small learnable data set, also as a process.

`python training_runs.py <folder> [setting=json …]` is what the fault tests kill.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FILMS = {"bad": ("bad", "poor"), "good": ("good", "great")}
FILLERS = "a the film movie is it to you and in how do i of".split()


def write_films(folder: Path, train: int = 48, validation: int = 24) -> Path:
    """Short sentences whose class a model can learn from one or two words."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for split, count in (("train", train), ("validation", validation)):
        lines: list[str] = []
        for i in range(count):
            label = ("bad", "good")[i % 2]
            words = draw.choices(FILLERS, k=draw.randint(2, 12))
            words.insert(draw.randrange(len(words)), draw.choice(FILMS[label]))
            text = " ".join(words) + f" {i}"
            lines.append(json.dumps({"text": text, "label": label}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def prepare(folder: Path) -> Path:
    """A folder with the data `films/` and the model `bert/`, where a training step can run."""
    import tiny

    write_films(folder / "films")
    tiny.write_tiny_bert(folder / "bert")
    return folder


def write_chain(folder: Path, variant: str = "2w") -> Path:
    """Beside `bert/`, a classifier of the same classes whose feed-forwards are chains: `chain/`."""
    from dataclasses import replace

    from attar.models.config import ChangedModel
    from attar.models.load import load_model, save_model
    from attar.models.surgery import changed

    loaded = load_model(folder / "bert")
    wanted = ChangedModel.model_validate({"from": "bert", "ffn": variant, "ffn_start": "random"})
    loaded.model.config.id2label = {0: "bad", 1: "good"}
    save_model(replace(loaded, model=changed(loaded.model, wanted)), folder / "chain")
    return folder / "chain"


def context_for(folder: Path, *, should_stop: Callable[[], bool] = lambda: False, **extra: Any):
    """A step's surroundings below `folder`, where `films/` and the models are."""
    from attar.data.config import FilesData
    from attar.progress import Progress
    from attar.step import MadeRows, StepContext

    (folder / "out").mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"films": extra.pop("data_config", FilesData(path="films", text="text"))}
    if made := extra.pop("made", None):  # the artifact of a step that made rows of them
        reader, step = "attar.data.augmented:augmented_data", SimpleNamespace(data="films")
        data["made"] = MadeRows(reader, made, step, seed=0)
    return StepContext(
        name="learn",
        folder=folder / "out",
        scratch=folder / "scratch",
        inputs=extra.pop("inputs", {}),
        data=data,
        recipe_folder=extra.pop("recipe_folder", folder),
        progress=Progress(quiet=True),
        should_stop=should_stop,
        **extra,
    )


SETTINGS: dict[str, Any] = {
    "model": "bert",
    "data": "films",
    "max_length": 24,
    "batch_size": 8,
    "max_steps": 12,
    "learning_rate": 3e-3,
    "evaluations": 3,
    "precision": "fp32",
}


def run_training(folder: Path, **settings: Any) -> dict[str, Any]:
    """Run the step as the engine would; its metrics. One thread: tiny tensors want no more."""
    import torch

    from attar.training.config import TrainStep
    from attar.training.run import train

    for_context = ("should_stop", "inputs", "recipe_folder", "data_config", "seed", "made")
    surroundings = {k: settings.pop(k) for k in for_context if k in settings}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(TrainStep(**{**SETTINGS, **settings}), context_for(folder, **surroundings))
    finally:
        torch.set_num_threads(threads)


def read_history(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "out" / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def read_weights(folder: Path) -> dict[str, Any]:
    """The tensors of the model that a run made."""
    from safetensors.torch import load_file

    return load_file(folder / "out" / "model" / "model.safetensors")


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[2:])
    run_training(Path(sys.argv[1]), **{name: json.loads(value) for name, value in given.items()})
