"""Tiny classifiers that answer with more than one class, and a small data set to judge them on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import tiny
from attar.data.config import FilesData
from attar.progress import Progress
from attar.step import StepContext
from attar.tasks.task import Task

COLOURS = ("red", "green", "blue")
LOUDER = 10
"""Factor on BERT's initial weights of sd 0.02, at which all texts look alike to it."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write_classifier(
    folder: Path,
    label_names: tuple[str, ...] = COLOURS,
    *,
    seed: int = 0,
    nan_for: int | None = None,
) -> Path:
    """A random BERT whose class called X is the same function in whatever order the names come.

    Args:
        label_names: some order of COLOURS; empty: a regression.
        nan_for: a token id whose embedding is NaN, so that texts with it make the model fail.
    """
    tiny.write_tiny_bert(folder, num_labels=len(label_names) or 1, seed=seed)
    file = folder / "model.safetensors"
    tensors = dict(load_file(file))
    if label_names:
        rows = [COLOURS.index(name) for name in label_names]
        head = np.random.default_rng(seed).normal(size=tensors["classifier.weight"].shape)
        tensors["classifier.weight"] = head[rows].astype(np.float32)
        tensors["classifier.bias"] = tensors["classifier.bias"][rows]
    for name in [n for n in tensors if n.startswith("bert.") and tensors[n].ndim == 2]:
        tensors[name] = tensors[name] * LOUDER
    if nan_for is not None:
        tensors["bert.embeddings.word_embeddings.weight"][nan_for] = np.nan
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if label_names:
        config["id2label"] = {str(i): name for i, name in enumerate(label_names)}
        config["label2id"] = {name: i for i, name in enumerate(label_names)}
    (folder / "config.json").write_text(json.dumps(config))
    Task(
        objective="classification" if label_names else "regression",
        label_names=label_names,
        max_length=32,
        input_names=INPUTS,
    ).write(folder)
    return folder


def write_rows(folder: Path, *, rows: int = 60, regression: bool = False) -> FilesData:
    """Texts of 1 to 20 words out of the tiny tokenizer's own, with random labels."""
    random = np.random.default_rng(1)
    words = [word for word in tiny.WORDS if not word.startswith("##")]
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        with (folder / f"{split}.jsonl").open("w") as stream:
            for row in range(rows):
                text = " ".join(random.choice(words, size=random.integers(1, 20)))
                label = float(random.normal()) if regression else COLOURS[random.integers(3)]
                stream.write(json.dumps({"text": f"{text} {row}", "label": label}) + "\n")
    return FilesData(
        path=str(folder),
        label_names=None if regression else COLOURS,
        objective="regression" if regression else "classification",
    )


def context_for(
    tmp_path: Path, data: FilesData, models: dict[str, Path], **settings
) -> StepContext:
    """What the engine would hand to the step: `models` are earlier steps, the data is "colours"."""
    folder = tmp_path / "made"
    folder.mkdir()
    return StepContext(
        name="scores",
        folder=folder,
        scratch=tmp_path / "scratch",
        inputs=models,
        data={"colours": data},
        recipe_folder=tmp_path,
        progress=settings.pop("progress", Progress(quiet=True)),
        **settings,
    )
