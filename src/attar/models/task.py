"""What a fine-tuned model is for: the sidecar `task.json` of its folder. Imports no torch.

A Hugging Face `config.json` says what a network is; it does not say how its texts were cut, which
inputs it was fed, or by which figure it was judged. Everything that comes after training (quantize,
export, evaluate, predict) reads this file instead of asking the recipe again, so that a model
folder can be carried away and still be used correctly. A classifier that was fine-tuned elsewhere
has no such file; what its `config.json` says is taken instead (`foreign`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from attar.artifacts import read_json, write_json
from attar.config import Config
from attar.errors import ArtifactError

TASK_FILE = "task.json"


class Task(Config):
    """What goes in, what comes out, and what counts as good."""

    objective: Literal["classification", "regression"]
    label_names: tuple[str, ...] = ()
    """Name of each class in the order of the logits; empty or one name for regression."""
    max_length: int = Field(gt=0)
    """Tokens; longer texts are cut."""
    input_names: tuple[str, ...]
    """Model inputs made from a text, such as input_ids and attention_mask."""
    metrics: tuple[str, ...] = ()
    """The first one selects the best model."""

    @model_validator(mode="after")
    def _labels_fit_the_objective(self) -> Task:
        count = len(self.label_names)
        if len(set(self.label_names)) != count:
            raise ValueError(f"label_names must be distinct, got {list(self.label_names)}")
        if self.objective == "classification" and count < 2:
            raise ValueError(f"classification needs at least 2 label_names, got {count}")
        if self.objective == "regression" and count > 1:
            raise ValueError(f"regression predicts one number, got {count} label_names")
        return self

    @property
    def num_labels(self) -> int:
        """Width of the model's head."""
        return len(self.label_names) if self.objective == "classification" else 1

    def write(self, folder: Path) -> None:
        """Put `task.json` into a model folder."""
        write_json(folder / TASK_FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> Task:
        """What a model folder is for: its `task.json`, or what the config of a classifier says.

        Raises:
            ArtifactError: the file is no JSON or says something impossible; there is none, and the
                model has no classification head.
            ModelError: a config that describes no task that attar knows.
        """
        file = folder / TASK_FILE
        if not file.is_file():
            from attar.models.foreign import task_of_config  # loads transformers

            return task_of_config(folder)
        try:
            return cls.model_validate(read_json(file))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise ArtifactError(
                f"{file} does not describe a task: {place}: {first['msg']} ({error.error_count()} "
                "mistakes); "
                "remove the folder and run again"
            ) from error


def is_classifier(folder: Path) -> bool:
    """Whether a model folder says what it is for: by `task.json`, or by a classifier's config."""
    if (folder / TASK_FILE).is_file():
        return True
    file = folder / "config.json"
    plain = read_json(file) if file.is_file() else {}
    names = (plain.get("architectures") if isinstance(plain, dict) else None) or [""]
    return str(names[0]).endswith("ForSequenceClassification")


def find_model_folder(path: Path) -> Path:
    """The model folder of an artifact: its `model/` where it has one, else the folder itself."""
    return path / "model" if (path / "model").is_dir() else path
