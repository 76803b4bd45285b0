"""What a model in memory, with whatever is done to it, says of validation rows, one by one.

Three ways to be judged, by what the model's head and the data are:

    a classifier's or regressor's head      the logits        → the data's first metric
    a language head, data with classes      zero-shot choice  → the data's first metric
    a causal language head, running text    nats of tokens    → nll

What cannot be judged is refused before anything is computed.
"""

from __future__ import annotations

import numpy as np

from attar.analysis.config import DisablingStep
from attar.analysis.judges.choice import open_choice
from attar.analysis.judges.head import HeadJudge
from attar.analysis.judges.judge import RowJudge
from attar.analysis.judges.text import TextJudge
from attar.analysis.subject import Subject, open_subject
from attar.data.tables import Split
from attar.errors import ModelError, UsageError
from attar.evaluation.glue import labelled_split, output_columns
from attar.models.structure.anatomy import anatomy_of
from attar.seeds import generator
from attar.step import StepContext


def open_judge(config: DisablingStep, context: StepContext) -> RowJudge:
    """The model, the rows, and the way to judge it.

    Raises:
        ModelError: a model without a head, for other classes than the data's, or with a head that
            cannot answer them.
        UsageError: settings of zero-shot choice, where it is judged otherwise.
        DataError: no labelled validation rows.
    """
    subject = open_subject(config, context)
    task, data = subject.loaded.task, subject.data
    split = _some_rows(labelled_split(data, "validation"), config.num_rows, context)
    has_head = task is not None and not task.has_language_head
    if task is not None and has_head and not data.kind.is_running:
        _refuse_settings_of_choice(config, "by its classifier's head")
        columns = output_columns(config.model, task, data, context.progress.warn)
        return HeadJudge(subject, task, split, columns, config.batch_size)
    _require_language_head(config, subject)
    if data.kind.is_running:
        _refuse_settings_of_choice(config, "by the nats of running text")
        return TextJudge(subject, split, config.batch_size)
    return open_choice(config, subject, split)


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


def _some_rows(split: Split, num_rows: int, context: StepContext) -> Split:
    if len(split) <= num_rows:
        return split
    drawn = generator(context.seed, "analysis rows").permutation(len(split))
    return split.rows(np.sort(drawn[:num_rows]))
