"""Judged by zero-shot choice: the class whose word a language model finds likeliest.

Rows are read in a template, the model's own (`task.json`) or the study's; the words are those of
the task, the study's, or the classes' names. The texts that calibrate are read in the same
template.
Letters: N rows · C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attar.analysis.config import DisablingStep
from attar.analysis.judges.judge import RowJudge, room
from attar.analysis.subject import Subject
from attar.data.prompts import INPUTS, fitting_template, prompts
from attar.data.tables import Split, TextData
from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import ModelError
from attar.evaluation.glue import known_metrics, output_columns
from attar.models.choice import (
    Candidates,
    following_candidates,
    start_of,
    target_candidates,
    word_scores,
)
from attar.models.task import Task
from attar.quantization.calibration.calibrate import Batch
from attar.quantization.calibration.real_tokens import DECODER_MASK


@dataclass
class ChoiceJudge(RowJudge):
    """The class whose word a language model finds likeliest."""

    subject: Subject
    split: Split
    encoded: Encoded
    candidates: Candidates
    per_token: bool
    batch_size: int
    unit: str = "row"

    def __post_init__(self) -> None:
        self.metric, self.against = known_metrics(self.subject.data)[0], self.split.labels

    def answers(self, name: str) -> np.ndarray:
        context, found = self.subject.context, np.zeros(len(self.split), np.int64)
        order = np.argsort(self.encoded.lengths, kind="stable")[::-1]
        with torch.inference_mode(), context.progress.task(name, len(order)) as bar:
            for start in range(0, len(order), self.batch_size):
                context.stop_if_asked("a study")
                rows = order[start : start + self.batch_size]
                batch = {k: torch.from_numpy(v) for k, v in self.encoded.batch(rows).items()}
                scores = word_scores(
                    self.subject.model, self.candidates, **batch, per_token=self.per_token
                )
                found[rows] = scores.argmax(dim=1).numpy()
                bar.advance(len(rows))
        return found


def open_choice(config: DisablingStep, subject: Subject, split: Split) -> ChoiceJudge:
    """The rows as prompts or sources, and the words of the classes.

    Raises:
        ModelError: the data have no classes, the numbers of words and classes differ, or nothing
            says the template.
    """
    data, folder = subject.data, subject.loaded.folder
    words, template = _words(config, subject.loaded.task, data)
    template = fitting_template(template, data, subject.context.name)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [template.format(*text) for text in split.texts]
    longest = room(subject)
    if subject.model.config.is_encoder_decoder:
        candidates = target_candidates(tokenizer, words)
        encoder = TextEncoder.from_folder(folder, longest, INPUTS)
        encoded = encoder.encode([(text,) for text in texts])
    else:
        candidates = following_candidates(tokenizer, words, template)
        left = longest - max(map(len, candidates.inputs))
        encoded = prompts(folder, texts, left)
    read = _rendered(data, template)
    prompted = Prompted(subject.loaded, subject.context, read, subject.texts, candidates)
    return ChoiceJudge(prompted, split, encoded, candidates, config.per_token, config.batch_size)


@dataclass(frozen=True)
class Prompted(Subject):
    """A language model that reads its calibration texts as it reads the rows it answers: in the
    template, and with the words of the classes, in turn, in its decoder.
    """

    candidates: Candidates

    @cached_property
    def batches(self) -> Sequence[Batch]:
        made = super().batches
        if not self.model.config.is_encoder_decoder or (made and DECODER_MASK in made[0]):
            return made
        return [_with_words(batch, self.candidates, start_of(self.model)) for batch in made]


def _with_words(batch: Batch, candidates: Candidates, start: int) -> Batch:
    """Row i of the batch is followed by the word of class i mod C."""
    fed = [(start, *ids[:-1]) for ids in candidates.ids]
    rows = [fed[row % len(fed)] for row in range(len(batch["input_ids"]))]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[start] * (longest - len(row))] for row in rows])
    lengths: Tensor = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(longest) < lengths[:, None]).to(torch.int64)
    return {**batch, "decoder_input_ids": ids, DECODER_MASK: mask}


def _rendered(data: TextData, template: str) -> TextData:
    train = data.split("train")
    texts = tuple((template.format(*text),) for text in train.texts)
    return replace(data, splits={**data.splits, "train": replace(train, texts=texts)})


def _words(config: DisablingStep, task: Task | None, data: TextData) -> tuple[tuple[str, ...], str]:
    """The words of the data's classes, in the data's order, and the template."""
    if data.objective != "classification":
        raise ModelError(
            f"a language model answers data with classes, or running text; data {data.name!r} are "
            f"for {data.objective}: name others"
        )
    trained = task if task is not None and task.label_words else None
    words = config.label_words
    if words is None and trained is not None:
        order = output_columns(config.model, trained, data)
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
