"""Judged by running text: the nats of its tokens, passage by passage."""

from __future__ import annotations

import numpy as np
import torch

from attar.analysis.judges.judge import RowJudge, room
from attar.analysis.subject import Subject
from attar.data.tables import Split
from attar.evaluation.language_modelling import foresee, read_stream
from attar.models.next_token import next_token_nats


class TextJudge(RowJudge):
    """Nats of running text, passage by passage."""

    def __init__(self, subject: Subject, split: Split, batch_size: int) -> None:
        self.subject, self.batch_size = subject, batch_size
        self.metric, self.unit = "nll", "passage"
        self.context = room(subject)
        folder = subject.loaded.folder
        self.stream = read_stream(folder, split.texts, f"data {subject.data.name!r}")
        self.against = np.zeros(len(self.stream.num_bytes))
        np.add.at(self.against, self.stream.passages[1:], 1.0)

    def answers(self, name: str) -> np.ndarray:
        context, model = self.subject.context, self.subject.model

        def nats_of(ids: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return next_token_nats(model, torch.from_numpy(ids)).numpy()

        with context.progress.task(name, len(self.stream.ids) - 1) as bar:

            def after_tokens(tokens: int) -> None:
                context.stop_if_asked("a study")
                bar.advance(tokens)

            return foresee(
                self.stream,
                nats_of,
                context=self.context,
                stride=self.context,
                batch_size=self.batch_size,
                after_tokens=after_tokens,
                where=name,
            ).nats
