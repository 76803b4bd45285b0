"""The task of a classifier that was fine-tuned elsewhere: read from its Hugging Face config.

The problem: a folder that `save_pretrained` wrote has no `task.json`, and yet its `config.json`
says most of what a task is. The idea: take only what it says without doubt.

    label_names  id2label            objective  problem_type, or regression for one label
    input_names  the segment types   max_length min(positions, the tokenizer's limit, 512)

Left out: several labels at once, and several numbers at once; both are refused. The metrics are
not known, so the data's own are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attar.artifacts import read_json
from attar.errors import ArtifactError, ModelError
from attar.models.architecture import config_of, input_names_of
from attar.models.sources.safe_files import read_config
from attar.models.structure.families import FAMILIES
from attar.models.task import Task, is_classifier

MAX_LENGTH = 512
"""Tokens; what most encoders were trained with, where nothing smaller is said."""


def task_of_config(folder: Path) -> Task:
    """The task of a folder with a `…ForSequenceClassification` and no `task.json`.

    Raises:
        ArtifactError: no classifier.
        ModelError: of a kind that attar does not know.
    """
    plain = read_config(folder)
    if not is_classifier(folder):
        raise ArtifactError(
            f"{folder} has no task.json, and its {(plain.get('architectures') or ['model'])[0]} "
            "has no classification head; fine-tune it with a train step first"
        )
    config: Any = config_of(plain, str(folder))
    count = config.num_labels
    problem = config.problem_type or ("regression" if count == 1 else "single_label_classification")
    if problem == "multi_label_classification":
        raise ModelError(
            f"{folder} gives a text several labels at once (problem_type {problem!r}); attar knows "
            "one of several labels, and one number"
        )
    family = FAMILIES.get(config.model_type)
    positions = None if family is None else family.max_tokens(config)
    try:
        return Task(
            objective="regression" if problem == "regression" else "classification",
            label_names=tuple(str(config.id2label[i]) for i in range(count)),
            max_length=_max_length(folder, positions),
            input_names=input_names_of(config),
        )
    except (ValidationError, KeyError) as error:
        raise ModelError(
            f"{folder / 'config.json'} describes no task that attar knows: {count} labels "
            f"{config.id2label}, problem_type {config.problem_type!r} ({error}); correct it"
        ) from error


def _max_length(folder: Path, positions: int | None) -> int:
    """Tokens after which texts are cut; a tokenizer without a limit says a number like 1e30."""
    file = folder / "tokenizer_config.json"
    said = read_json(file).get("model_max_length") if file.is_file() else None
    limits = [positions, int(said) if isinstance(said, int | float) else None, MAX_LENGTH]
    return min(limit for limit in limits if limit is not None and limit > 0)
