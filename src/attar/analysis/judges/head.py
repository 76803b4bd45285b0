"""Judged by the logits of a classifier's or a regressor's head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attar.analysis.judges.judge import RowJudge
from attar.analysis.judging import MemoryForm
from attar.analysis.subject import Subject
from attar.data.tables import Split
from attar.evaluation.glue import known_metrics, predictions_from
from attar.evaluation.predictions import logits_over
from attar.tasks.task import Task


@dataclass
class HeadJudge(RowJudge):
    """Logits of a classifier or a regressor."""

    subject: Subject
    task: Task
    split: Split
    columns: np.ndarray
    batch_size: int
    unit: str = "row"

    def __post_init__(self) -> None:
        self.metric, self.against = known_metrics(self.subject.data)[0], self.split.labels

    def answers(self, name: str) -> np.ndarray:
        context = self.subject.context
        form = MemoryForm(self.subject.loaded, self.task, self.subject.model)
        with context.progress.task(f"{context.name}: {name}", len(self.split)) as bar:

            def after_batch(rows: int) -> None:
                context.stop_if_asked("a study")
                bar.advance(rows)

            logits = logits_over(name, form, self.split, self.batch_size, after_batch)
        return predictions_from(logits[:, self.columns], self.subject.data)
