"""Judged by zero-shot choice: the class whose word a language model finds likeliest.

Rows are read in a template, the model's own (`task.json`) or the study's; the words are those of
the task, the study's, or the classes' names. The texts that calibrate are read in the same
template.
Letters: N rows · C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from attar.analysis.config import DisablingStep
from attar.analysis.judges.judge import RowJudge, room
from attar.analysis.subject import Subject
from attar.data.prompts import INPUTS, fitting_template, prompts
from attar.data.tables import Split
from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import ModelError
from attar.evaluation.glue import known_metrics, output_columns
from attar.models.choice import word_scores
from attar.numerics.metrics import predicted_classes
from attar.scoring.label_words import LabelWords


@dataclass
class ChoiceJudge(RowJudge):
    """The class whose word a language model finds likeliest."""

    subject: Subject
    split: Split
    encoded: Encoded
    per_token: bool
    batch_size: int
    unit: str = "row"

    def __post_init__(self) -> None:
        self.metric, self.against = known_metrics(self.subject.data)[0], self.split.labels

    def answers(self, name: str) -> np.ndarray:
        context = self.subject.context
        assert self.subject.named is not None
        candidates = self.subject.named.candidates
        scores_NC = np.zeros((len(self.split), len(candidates.ids)))
        order = np.argsort(self.encoded.lengths, kind="stable")[::-1]
        with torch.inference_mode(), context.progress.task(name, len(order)) as bar:
            for start in range(0, len(order), self.batch_size):
                context.stop_if_asked("a study")
                rows = order[start : start + self.batch_size]
                batch = {k: torch.from_numpy(v) for k, v in self.encoded.batch(rows).items()}
                scores = word_scores(
                    self.subject.model, candidates, **batch, per_token=self.per_token
                )
                scores_NC[rows] = scores.numpy()
                bar.advance(len(rows))
        return predicted_classes(scores_NC, f"model {name!r}")


def open_choice(config: DisablingStep, subject: Subject, split: Split) -> ChoiceJudge:
    """The rows as prompts or sources, and the words of the classes.

    Raises:
        ModelError: the data have no classes, the numbers of words and classes differ, or nothing
            says the template.
        UsageError: the template names a text that the rows do not have.
    """
    words, template = _words(config, subject)
    template = fitting_template(template, subject.data, subject.context.name)
    named = LabelWords.of(subject.model, subject.loaded.folder, template, words)
    texts, folder, longest = named.render(split.texts), subject.loaded.folder, room(subject)
    if subject.model.config.is_encoder_decoder:
        encoded = TextEncoder.from_folder(folder, longest, INPUTS).encode(texts)
    else:
        left = longest - max(map(len, named.candidates.inputs))
        encoded = prompts(folder, [text for (text,) in texts], left)
    asked = replace(subject, named=named)
    return ChoiceJudge(asked, split, encoded, config.per_token, config.batch_size)


def _words(config: DisablingStep, subject: Subject) -> tuple[tuple[str, ...], str]:
    """The words of the data's classes, in the data's order, and the template."""
    task, data = subject.loaded.task, subject.data
    if not data.kind.has_classes:
        raise ModelError(
            f"a language model answers data with classes, or running text; data {data.name!r} are "
            f"for {data.objective}: name others"
        )
    trained = task if task is not None and task.label_words else None
    words = config.label_words
    if words is None and trained is not None:
        order = output_columns(config.model, trained, data, subject.context.progress.warn)
        words = tuple(trained.label_words[i] for i in order)
    words = words or data.label_names
    if len(words) != len(data.label_names):
        raise ModelError(
            f"label_words has {len(words)} words, data {data.name!r} have the "
            f"{len(data.label_names)} classes {list(data.label_names)}; give one word for each"
        )
    template = config.template or (trained.template if trained is not None else None)
    if template is None:
        raise ModelError(
            f"model {config.model!r} answers data {data.name!r} with words, and nothing says what "
            'it reads; set template, such as "Review: {0} Sentiment:"'
        )
    return words, template
