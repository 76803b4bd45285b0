"""What a model in memory, with whatever is done to it, is worth on validation rows.

The same way from texts to a metric as the step `evaluate` goes (length-sorted rows, columns matched
by class names), for models that are on no disk: a float model with quantizers at some sites, say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from attar.analysis.config import JudgedStudy
from attar.analysis.subject import Subject, require_classes_or_numbers
from attar.artifacts import MIB
from attar.data.tables import Split
from attar.evaluation.glue import known_metrics, labelled_split, output_columns, predictions_from
from attar.evaluation.predictions import logits_over
from attar.models.cost import flops, num_params
from attar.models.load import LoadedModel
from attar.numerics.metrics import METRICS
from attar.scoring.forms import Form
from attar.seeds import generator
from attar.step import StepContext
from attar.tasks.task import Task


class MemoryForm(Form):
    """A model that is on no disk."""

    def __init__(self, loaded: LoadedModel, task: Task, model: PreTrainedModel) -> None:
        self.form, self.folder, self.task, self._model = "simulated", loaded.folder, task, model
        self.num_params = num_params(model)
        self.size_mib = 4 * self.num_params / MIB

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(batch[name]) for name in self.task.input_names}
            return self._model(**inputs).logits.float().numpy()

    def flops(self, batch: int, tokens: int) -> int:
        return flops(self._model, batch, tokens)


@dataclass(frozen=True)
class Judge:
    """Rows with labels, and the data's first metric."""

    subject: Subject
    split: Split
    columns: np.ndarray
    metric: str
    batch_size: int

    def value(self, model: PreTrainedModel, name: str) -> float:
        """The metric of a model that has the subject's task.

        Raises:
            NonFiniteError: a logit is NaN or infinite.
        """
        task, context = self.subject.loaded.task, self.subject.context
        assert task is not None
        form = MemoryForm(self.subject.loaded, task, model)
        with context.progress.task(f"{context.name}: {name}", len(self.split)) as bar:

            def after_batch(rows: int) -> None:
                context.stop_if_asked("a study")
                bar.advance(rows)

            logits = logits_over(name, form, self.split, self.batch_size, after_batch)
        predictions = predictions_from(logits[:, self.columns], self.subject.data)
        return METRICS[self.metric](predictions, self.split.labels)


def open_judge(config: JudgedStudy, subject: Subject, context: StepContext) -> Judge:
    """The rows and the metric of a study.

    Raises:
        ModelError: the model is not fine-tuned, writes text, or is for other classes than the data.
        DataError: no labelled validation rows.
    """
    require_classes_or_numbers(config, subject.loaded)
    task, data = subject.loaded.task, subject.data
    assert task is not None
    columns = output_columns(config.model, task, data, context.progress.warn)
    split = labelled_split(data, "validation")
    if len(split) > config.num_rows:
        drawn = generator(context.seed, "analysis rows").permutation(len(split))
        split = split.rows(np.sort(drawn[: config.num_rows]))
    return Judge(subject, split, columns, known_metrics(data)[0], config.batch_size)
