"""Evaluates the model of a study on validation rows.

    a classifier's or regressor's head      the logits        → the data's first metric
    a language head, data with classes      zero-shot choice  → the data's first metric
    a causal language head, running text    nats of tokens    → nll

In zero-shot choice, the prediction is the class with the most likely label word after a template,
which is set in the study or in the model's task. Unsupported models and data are an error before
anything is computed.
Letters: N rows · C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from transformers import PreTrainedModel

from attar.analysis.config import DisablingStep, JudgedStudy
from attar.analysis.subject import (
    UNTUNED_MAX_LENGTH,
    Subject,
    open_subject,
    require_classes_or_numbers,
)
from attar.data.prompts import fitting_template
from attar.data.tables import Split
from attar.errors import ModelError, UsageError
from attar.models.structure.anatomy import anatomy_of
from attar.scoring.in_memory import token_nats
from attar.scoring.judging import Judge
from attar.scoring.label_words import LabelWords, label_word_scores
from attar.scoring.matching import known_metrics, labelled_split, output_columns
from attar.scoring.running_text import Stream, read_stream, score_stream
from attar.seeds import generator
from attar.step import StepContext


@dataclass(frozen=True)
class TextJudge:
    """Evaluates running text: nats of the tokens, per passage."""

    stream: Stream
    window: int
    batch_size: int
    context: StepContext
    metric: str = field(default="nll", init=False)

    @property
    def labels(self) -> np.ndarray:
        """Number of predicted tokens of each passage, (N,)."""
        return self.stream.predicted

    def answers(self, model: PreTrainedModel, name: str) -> np.ndarray:
        """Nats of each passage, (N,).

        Raises:
            NonFiniteError: a token's nats are NaN or infinite.
        """
        tokens = len(self.stream.ids) - 1
        title = f"{self.context.name}: {name}"
        with self.context.counted(title, tokens, "a study") as after_tokens:
            return score_stream(
                self.stream,
                partial(token_nats, model),
                context=self.window,
                stride=self.window,
                batch_size=self.batch_size,
                after_tokens=after_tokens,
                model=name,
            )


def open_head_judge(config: JudgedStudy, subject: Subject) -> Judge:
    """Rows and metric for the study of a classifier or regressor.

    Raises:
        ModelError: the model is not fine-tuned, is generative, or its classes differ from the
            data's.
        DataError: no labelled validation rows.
    """
    require_classes_or_numbers(config, subject.loaded)
    return _head_judge(config, subject, _some_rows(subject, config.num_rows))


def open_judge(config: DisablingStep, context: StepContext) -> tuple[Subject, Judge | TextJudge]:
    """Open the model and its judge.

    Raises:
        ModelError: the model has no head, a head that does not fit the data, or other classes than
            the data.
        UsageError: settings of zero-shot choice are given but not used.
        DataError: no labelled validation rows.
    """
    subject = open_subject(config, context)
    task, data = subject.loaded.task, subject.data
    split = _some_rows(subject, config.num_rows)
    has_head = task is not None and not task.has_language_head
    if has_head and not data.kind.is_running:
        _refuse_settings_of_choice(config, "by its classification head")
        return subject, _head_judge(config, subject, split)
    _require_language_head(config, subject)
    if data.kind.is_running:
        _refuse_settings_of_choice(config, "by the loss on running text")
        stream = read_stream(subject.loaded.folder, split.texts, f"data {data.name!r}")
        return subject, TextJudge(stream, _max_tokens(subject), config.batch_size, context)
    return _by_words(config, subject, split)


def _some_rows(subject: Subject, num_rows: int) -> Split:
    split = labelled_split(subject.data, "validation")
    if len(split) <= num_rows:
        return split
    drawn = generator(subject.context.seed, "analysis rows").permutation(len(split))
    return split.rows(np.sort(drawn[:num_rows]))


def _head_judge(config: JudgedStudy | DisablingStep, subject: Subject, split: Split) -> Judge:
    loaded, data, context = subject.loaded, subject.data, subject.context
    assert loaded.task is not None
    return Judge.of_head(
        config.model, loaded.folder, loaded.task, split, data, context, config.batch_size
    )


def _by_words(config: DisablingStep, subject: Subject, split: Split) -> tuple[Subject, Judge]:
    """Judge by zero-shot choice; calibration texts use the same template."""
    words, template = _words(config, subject)
    template = fitting_template(template, subject.data, subject.context.name)
    model, folder = subject.model, subject.loaded.folder
    named = LabelWords.of(model, folder, template, words)
    judge = Judge(
        named.encode(model, folder, split.texts, _max_tokens(subject)),
        split.labels,
        np.arange(len(words)),
        known_metrics(subject.data)[0],
        config.batch_size,
        subject.context,
        partial(label_word_scores, candidates=named.candidates, per_token=config.per_token),
    )
    return replace(subject, named=named), judge


def _words(config: DisablingStep, subject: Subject) -> tuple[Sequence[str], str]:
    """Label words in the data's order, and the template."""
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


def _max_tokens(subject: Subject) -> int:
    """Maximum number of tokens of the model."""
    task, most = subject.loaded.task, anatomy_of(subject.model).max_tokens
    if task is not None:
        return task.max_length
    return UNTUNED_MAX_LENGTH if most is None else min(most, UNTUNED_MAX_LENGTH)


def _refuse_settings_of_choice(config: DisablingStep, judged: str) -> None:
    given = {
        "template": config.template is not None,
        "label_words": config.label_words is not None,
        "per_token": config.per_token,
    }
    unused = [name for name, is_given in given.items() if is_given]
    if unused:
        raise UsageError(
            f"model {config.model!r} is judged {judged} on data {config.data!r}, where "
            f"{' and '.join(unused)} would change nothing: they belong to zero-shot choice, a "
            "language model on data with classes; remove them, or name such a model and data"
        )


def _require_language_head(config: DisablingStep, subject: Subject) -> None:
    model, data = subject.model, subject.data
    head = model.get_output_embeddings()
    is_causal = anatomy_of(model).stacks[-1].row.is_causal
    is_running = data.kind.is_running
    if head is None or not is_causal or (is_running and model.config.is_encoder_decoder):
        task = subject.loaded.task
        made = f"made for {task.objective}" if task else f"a bare {type(model).__name__}"
        raise ModelError(
            f"model {config.model!r} is {made} and cannot be judged by data {data.name!r} "
            f"({data.objective}): classes need a classifier's head or a language head, running "
            "text a causal language model; fine-tune it with a train step, or name other data"
        )
