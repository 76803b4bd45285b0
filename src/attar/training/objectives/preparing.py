"""Derive a task from a step's settings and its data, and examples from a split.

The data has an objective. A step may set another one if it fits the data: classes and numbers can
be generated as text (`objective = "text_to_text"`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from attar.data.prompts import fitting_template
from attar.data.tables import Split, TextData
from attar.data.tokenize import TextEncoder
from attar.data.windows import WindowEncoder
from attar.errors import DataError, ModelError, UsageError, did_you_mean
from attar.models.architecture import input_names_of
from attar.models.config import STATIC_TYPE
from attar.models.foreign import says_its_task, task_of
from attar.models.generation import start_of
from attar.models.load import LoadedModel, check_length
from attar.step import StepContext
from attar.tasks.denoising import PUBLISHED
from attar.tasks.embedding import Embedding
from attar.tasks.table import KINDS, Answer, Gold
from attar.tasks.task import Generation, Task, number_words
from attar.training.config import TrainStep
from attar.training.forward import stacks_of
from attar.training.objectives.embedded import EmbeddedTexts
from attar.training.objectives.examples import Examples
from attar.training.objectives.labelled import LabelledTexts
from attar.training.objectives.masked import MaskedTokens
from attar.training.objectives.next_tokens import Documents
from attar.training.objectives.quoted import QuotedTexts
from attar.training.objectives.shards import Shards
from attar.training.objectives.spans import VALIDATION_SEED, HiddenSpans
from attar.training.objectives.tagged import TaggedTexts
from attar.training.objectives.text_pairs import TextPairs

NUMBER_STEP = 0.2
"""T5's rounding of STS-B (arXiv 1910.10683, section 2.4)."""
MAX_NUMBER_WORDS = 200
Names = tuple[str, ...]
"""Names of a model's inputs."""


def task_for(
    config: TrainStep, data: TextData, model: PreTrainedConfig, folder: Path | None, step: str
) -> Task:
    """The task of the trained model.

    Args:
        model: the student's config.
        folder: the student's folder, whose generation settings are kept; None: there is none.

    Raises:
        UsageError: the objective does not fit the data, or the label words do not fit the classes.
        ModelError: the model cannot generate a target text.
    """
    asked = KINDS[config.objective or data.objective]
    learns_words = data.kind.may_be_words and asked.writes
    if problem := config.misfit(data.kind, data.name):
        raise UsageError(f"{step}: {problem}")
    if asked.graph == "encoder_decoder" and not model.is_encoder_decoder:
        raise ModelError(
            f"{step}: a model of type {model.model_type!r} has no decoder that reads an encoder's "
            "output, so it cannot generate a target text; use an encoder-decoder such as t5 or "
            'bart, or objective = "classification"'
        )
    settings: dict[str, Any] = {
        "objective": asked.name if asked.is_running else data.objective,
        "label_names": data.label_names,
        "max_length": config.max_length,
        "input_names": input_names_of(model),
        "num_texts": None if data.kind.is_running else data.num_texts,
        "metrics": asked.metrics if asked.hides else data.metrics,
        "window_overlap": config.window_overlap,
    }
    if asked.gives_sets:
        settings["thresholds"] = _thresholds(config, data, step)
    if asked.hides_spans:
        settings["denoisers"] = config.denoisers or PUBLISHED
    if asked.hides and config.masking:
        settings["masking"] = config.masking
    if asked.embeds:
        settings["embedding"] = _embedding(config, folder, model, step)
    if learns_words:
        settings["label_words"] = label_words_for(config, data, step)
    if asked.writes:
        settings["template"] = fitting_template(config.template, data, step)
    if data.kind.writes:
        settings |= {
            "max_target_length": config.max_target_length,
            "generation": _generation(folder, config.max_target_length),
        }
    try:
        return Task(**settings)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"{step}: {message}") from error


def label_words_for(config: TrainStep, data: TextData, step: str) -> tuple[str, ...]:
    """The word that a model writes for each class, or for each number.

    Raises:
        DataError, UsageError: no training row has a number, or there are too many different ones.
    """
    if config.label_words is not None or not data.kind.is_score:
        return config.label_words or data.label_names
    # the numbers in the training labels, rounded, and all multiples between them
    labels = data.split("train").labels
    known = labels[~np.isnan(labels)]
    if len(known) == 0:
        raise DataError(f"{step}: no training row of data {data.name!r} has a number")
    width = config.number_step or NUMBER_STEP
    low, high = float(known.min()), float(known.max())
    if (high - low) / width > MAX_NUMBER_WORDS:
        raise UsageError(
            f"{step}: data {data.name!r} has numbers from {low:g} to {high:g}, which are more than "
            f"{MAX_NUMBER_WORDS} multiples of {width:g} to choose from; set number_step = "
            f"{(high - low) / MAX_NUMBER_WORDS:.2g} or more"
        )
    return number_words(low, high, width)


def _thresholds(config: TrainStep, data: TextData, step: str) -> tuple[float, ...]:
    """The probability threshold of each label.

    Raises:
        UsageError: a threshold for an unknown label.
    """
    asked = 0.5 if config.thresholds is None else config.thresholds
    if not isinstance(asked, dict):
        return (float(asked),) * len(data.label_names)
    unknown = [name for name in asked if name not in data.label_names]
    if unknown:
        raise UsageError(
            f"{step}: thresholds names {unknown[0]!r}"
            f"{did_you_mean(unknown[0], list(data.label_names))}; the labels of data "
            f"{data.name!r} are {', '.join(data.label_names)}"
        )
    return tuple(asked.get(name, 0.5) for name in data.label_names)


def ready(
    task: Task,
    data: TextData,
    name: str,
    student: LoadedModel,
    readers: Mapping[str, PreTrainedModel],
    input_names: tuple[str, ...],
    context: StepContext,
    *,
    labelled: bool,
    seed: int,
) -> Examples:
    """Prepare a split for the student and the teacher, and report its size and how many rows are
    truncated.

    Args:
        name: of the split.
        readers: "the model", "the teacher" → the models that read these rows.
        labelled: whether every row needs its gold answer.
        seed: for random choices in training rows, such as masks.

    Raises:
        DataError, ModelError, UsageError: as `examples_for`; or the split is missing, empty or
            lacks answers; or a model has too few positions or embeddings for the texts.
    """
    split = some_rows(data, name, context.name, labelled=labelled)
    for who, model in readers.items():
        check_length(model.config, task.max_length, f"{context.name}: {who}", made_for=True)
    examples = examples_for(task, split, name, student, input_names, seed)
    for model in readers.values():
        largest = max(ids.largest_id for ids in examples.texts)
        require_embeddings(model, largest, context.name)
    cut = ""
    for limit, ids in zip(("max_length", "max_target_length"), examples.texts, strict=False):
        if ids.num_cut:
            cut += f", {ids.num_cut} are longer than {limit} and are truncated"
    unlabelled = split.num_unlabelled if split.chunks is None and task.kind.has_gold else 0
    without = f", {unlabelled} of them unlabelled" if unlabelled else ""
    context.progress.say(f"  {context.name}: {len(split)} {name} rows{without}{cut}")
    return examples


def of_one_width(examples: Examples, task: Task) -> Examples:
    """The same rows, with each batch padded to max_length and max_target_length, as in published
    code. Blocks of running text are full already; `misfit` refuses other tasks."""
    if isinstance(examples, LabelledTexts):
        encoded = replace(examples.encoded, width=task.max_length)
        return replace(examples, encoded=encoded)
    if isinstance(examples, TextPairs):
        written = task.max_target_length or task.max_length
        source = replace(examples.source, width=task.max_length)
        return replace(examples, source=source, target=replace(examples.target, width=written))
    return examples


def some_rows(data: TextData, name: str, step: str, *, labelled: bool) -> Split:
    """A split with at least one row. If a teacher labels the train split, the unlabelled rows are
    included.

    Args:
        labelled: whether every row needs its gold answer.

    Raises:
        DataError: the split is missing, empty, or lacks answers.
    """
    split = data.split(name, labelled=labelled)
    if name == "train" and not labelled:
        split = data.taught
    if len(split) == 0:
        raise DataError(
            f"data {data.name!r}: split {name!r} has no rows left; {step} needs at least one"
        )
    return split


def examples_for(
    task: Task,
    split: Split,
    name: str,
    student: LoadedModel,
    input_names: tuple[str, ...],
    seed: int = 0,
) -> Examples:
    """Prepare a split for the student.

    Args:
        name: of the split, for messages.
        input_names: inputs of student and teacher that are computed from a text.
        seed: for random choices in training rows, such as masks.

    Raises:
        DataError, ModelError, UsageError: the split or the model does not fit the objective.
    """
    return EXAMPLES[task.learned](task, split, name, student, input_names, seed)


def _labelled(
    task: Task, split: Split, name: str, student: LoadedModel, input_names: Names, seed: int = 0
) -> Examples:
    encoder = TextEncoder.from_folder(student.folder, task.max_length, input_names)
    cuts = task.cuts if task.kind.gives_sets else ()
    return LabelledTexts.of(split, encoder, stacks_of(student.model), task.kind, cuts)


def _embedded(
    task: Task, split: Split, name: str, student: LoadedModel, input_names: Names, seed: int = 0
) -> Examples:
    encoder = TextEncoder.from_folder(student.folder, task.max_length, input_names)
    return EmbeddedTexts.of(split, task, encoder, stacks_of(student.model))


def _documents(
    task: Task, split: Split, name: str, student: LoadedModel, input_names: Names, seed: int = 0
) -> Examples:
    if split.chunks is not None:
        return Shards.of(split.chunks, student.folder, task.max_length)
    return Documents.of(split, student.folder, task.max_length, f"split {name!r}")


def _text_pairs(
    task: Task, split: Split, name: str, student: LoadedModel, input_names: Names, seed: int = 0
) -> Examples:
    encoder = TextEncoder.from_folder(student.folder, task.max_length, input_names)
    longest = task.max_target_length or task.max_length
    target_encoder = TextEncoder.from_folder(student.folder, longest, input_names[:2])
    return TextPairs.of(
        split, task, encoder, target_encoder, start_of(student.model, str(student.folder))
    )


def _spans(
    task: Task, split: Split, name: str, student: LoadedModel, _: Names, seed: int
) -> Examples:
    start = start_of(student.model, str(student.folder))
    drawn_with = seed if name == "train" else VALIDATION_SEED
    found = HiddenSpans.of(split, task, student.folder, start, drawn_with, f"split {name!r}")
    raw, denoisers = found.corruption.raw_tokens, found.corruption.denoisers
    written = max(denoiser.targets(raw) for denoiser in denoisers)
    check_length(student.model.config, written, "the decoder, which generates the masked spans,")
    return found


def _masked(
    task: Task, split: Split, name: str, student: LoadedModel, _: Names, seed: int
) -> Examples:
    drawn_with = seed if name == "train" else VALIDATION_SEED
    return MaskedTokens.of(split, task, student.folder, drawn_with, f"split {name!r}")


def _tagged(
    task: Task, split: Split, name: str, student: LoadedModel, input_names: Names, seed: int = 0
) -> Examples:
    task = task.model_copy(update={"input_names": input_names})
    encoder = WindowEncoder(student.folder, task)
    return TaggedTexts.of(split, task.label_names, encoder, stacks_of(student.model))


def _quoted(
    task: Task, split: Split, name: str, student: LoadedModel, input_names: Names, seed: int = 0
) -> Examples:
    task = task.model_copy(update={"input_names": input_names})
    encoder = WindowEncoder(student.folder, task)
    return QuotedTexts.of(split, encoder, stacks_of(student.model))


Maker = Callable[[Task, Split, str, LoadedModel, tuple[str, ...], int], Examples]
"""(task, split, the split's name, student, input names, seed) → examples."""
EXAMPLES: Mapping[tuple[Gold, Answer], Maker] = {
    ("class", "row"): _labelled,
    ("labels", "row"): _labelled,
    ("number", "row"): _labelled,
    ("relevance", "rank"): _labelled,
    ("similarity", "vector"): _embedded,
    ("tags", "tags"): _tagged,
    ("quotes", "quote"): _quoted,
    ("itself", "next"): _documents,
    ("itself", "spans"): _spans,
    ("itself", "masked"): _masked,
    ("text", "text"): _text_pairs,
    ("class", "text"): _text_pairs,
    ("number", "text"): _text_pairs,
    ("relevance", "text"): _text_pairs,
}
"""(kind of gold answer, form in which it is learned) → function that makes the examples."""


def _generation(folder: Path | None, max_target_length: int) -> Generation:
    """The generation settings of the folder's model, if it has any; else greedy decoding."""
    if folder is not None and says_its_task(folder):
        task = task_of(folder)
        if task.generation is not None:
            return task.generation
    return Generation(max_new_tokens=max_target_length)


def _embedding(
    config: TrainStep, folder: Path | None, model: PreTrainedConfig, step: str
) -> Embedding:
    """The embedding settings of the step, else those of the folder's model, else mean pooling.

    Raises:
        UsageError: the model is a static table, which supports only mean pooling.
    """
    own = task_of(folder).embedding if folder is not None and says_its_task(folder) else None
    found = config.embedding or own or Embedding()
    if model.model_type != STATIC_TYPE:
        return found
    if config.embedding is not None and found.pooling != "mean":
        raise UsageError(
            f"{step}: a static model has a vector for each token and a text is their mean, and "
            f'embedding.pooling is "{found.pooling}"; set pooling = "mean"'
        )
    if config.embedding is not None:
        return found
    # an encoder's own width is that of its vectors, which the table may be narrower than
    width = found.width if (found.width or 0) < model.hidden_size else None
    return found.model_copy(update={"pooling": "mean", "width": width})


def require_embeddings(model: PreTrainedModel, largest_id: int, who: str) -> None:
    """Raise ModelError if token ids exceed the model's embedding table."""
    embeddings = model.get_input_embeddings()
    if not isinstance(embeddings, nn.Embedding):
        return
    if largest_id >= embeddings.num_embeddings:
        raise ModelError(
            f"{who}: the tokenizer gives token ids up to {largest_id}, {type(model).__name__} has "
            f"{embeddings.num_embeddings} embeddings; use the tokenizer that belongs to the model"
        )
