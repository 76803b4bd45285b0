"""The task of a fine-tuned model: `task.json` in its folder. Imports no torch.

A Hugging Face `config.json` describes a network, but not how its texts were truncated, which inputs
it received, or by which metric it was judged. Every step after training (quantize, export,
evaluate, predict) reads this file instead of the recipe, so that a model folder can be moved and
still be used correctly. A model that was fine-tuned elsewhere has no such file; its task is
inferred from its `config.json` (`attar.models.foreign`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from attar.artifacts import read_json, write_json
from attar.config import Config
from attar.errors import ArtifactError, DataError, ModelError
from attar.tasks.denoising import Denoiser
from attar.tasks.embedding import SIDES, Embedding
from attar.tasks.masking import Masking
from attar.tasks.table import KINDS, TEXT_TO_TEXT, Answer, Gold, Kind, Objective, Shown

TASK_FILE = "task.json"
MAX_TOKENS = 2**20
"""Upper limit for text lengths; the longest that published models read."""
MAX_BEAMS = 1000
"""Upper limit for beams; each holds a copy of the decoder's cache."""


class Generation(Config):
    """Generation settings of an encoder-decoder, with the names and meanings of transformers."""

    num_beams: int = Field(default=1, ge=1, le=MAX_BEAMS)
    max_new_tokens: int = Field(default=128, gt=0, le=MAX_TOKENS)
    min_new_tokens: int = Field(default=0, ge=0)
    length_penalty: float = 1.0
    """Beam search: divide a score by length ** length_penalty."""
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    """No sequence of this many tokens may occur twice; 0: no limit."""
    early_stopping: bool = False
    """Beam search: stop as soon as num_beams texts are complete."""
    forced_bos_token_id: int | None = None
    """The first generated token."""
    forced_eos_token_id: int | None = None
    """The last token of a text that reaches the maximum length."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Generation:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}, above max_new_tokens = "
                f"{self.max_new_tokens}"
            )
        return self


class Task(Config):
    """Inputs, outputs and metrics of a model."""

    objective: Objective
    label_names: tuple[str, ...] = ()
    """Name of each class, in the order of the logits; at most one name for a number, none for
    generated text."""
    max_length: int = Field(gt=0, le=MAX_TOKENS)
    """Maximum number of tokens; longer texts are truncated."""
    input_names: tuple[str, ...]
    """Inputs that the model takes from a text, such as input_ids and attention_mask."""
    num_texts: Literal[1, 2] | None = None
    """Number of texts per row: 2 for text pairs. Taken from the training data; None: unknown (a
    folder from an older attar, or a model that was fine-tuned elsewhere and is not exported)."""
    metrics: tuple[str, ...] = ()
    """The first one selects the best checkpoint."""
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """For multi_label: probability threshold of each label, in the order of label_names; empty:
    0.5."""
    label_words: tuple[str, ...] = ()
    """What a model with a language head writes for each class, in the order of label_names, or for
    each possible number; empty: the model has a classification head."""
    template: str = "{0}"
    """Input format of a model that generates text, with {0} and {1} for a row's texts."""
    max_target_length: int | None = Field(default=None, gt=0, le=MAX_TOKENS)
    """Maximum number of tokens of a target, for tasks that generate text."""
    generation: Generation | None = None
    """Generation settings, for tasks that generate text."""
    window_overlap: int | None = Field(default=None, ge=0, le=MAX_TOKENS)
    """Tokens shared by neighbouring windows of a long text, for tasks with a prediction per token;
    None: a third of max_length."""
    no_answer_threshold: float | None = None
    """For questions that may have no answer: none is given if the score of "no answer" exceeds that
    of the best answer by more than this; None: there is always an answer."""
    denoisers: tuple[Denoiser, ...] | None = Field(default=None, min_length=1)
    """Span corruption; None: T5's, or the task does not hide spans."""
    masking: Masking | None = None
    """Masking; None: BERT's, or the task does not mask tokens."""
    embedding: Embedding | None = None
    """How vectors are computed, for tasks that embed texts."""

    @model_validator(mode="after")
    def _generation_fits_the_objective(self) -> Task:
        if self.kind.writes and self.generation is None:
            raise ValueError(f"{self.objective} needs generation")
        if not self.kind.writes and (self.generation or self.max_target_length):
            raise ValueError(
                f"{self.objective} does not generate text, so it has no generation and no "
                "max_target_length"
            )
        if self.window_overlap is not None and not self.kind.answers_tokens:
            raise ValueError(f"{self.objective} uses no windows, so it has no window_overlap")
        if self.denoisers and not self.kind.hides_spans:
            raise ValueError(f"{self.objective} hides no spans, so it has no denoisers")
        if self.masking and self.kind.answer != "masked":
            raise ValueError(f"{self.objective} masks no tokens, so it has no masking")
        if self.kind.embeds and self.embedding is None:
            raise ValueError(f"{self.objective} needs embedding")
        if self.embedding is not None and not self.kind.embeds:
            raise ValueError(f"{self.objective} has no vectors, so it has no embedding")
        return self

    @model_validator(mode="after")
    def _labels_fit_the_objective(self) -> Task:
        count = len(self.label_names)
        if self.label_words and self.kind.is_score:
            values = self.word_values  # raises if a word is not a number
            if list(values) != sorted(set(values)):
                raise ValueError(f"label_words must be increasing numbers, got {list(values)}")
        elif self.label_words and len(set(self.label_words)) != count:
            raise ValueError(
                f"label_words must be distinct, one for each of {list(self.label_names)}, got "
                f"{list(self.label_words)}"
            )
        if len(set(self.label_names)) != count:
            raise ValueError(f"label_names must be distinct, got {list(self.label_names)}")
        fewest, most = self.kind.num_labels
        if not self.kind.allows(count):
            limit = f"at least {fewest}" if most is None else f"at most {most}"
            raise ValueError(f"{self.objective} needs {limit} label_names, got {count}")
        return self

    @model_validator(mode="after")
    def _thresholds_fit_the_labels(self) -> Task:
        if self.thresholds and not self.kind.gives_sets:
            raise ValueError(f"{self.objective} gives one answer, so it has no thresholds")
        if self.thresholds and len(self.thresholds) != len(self.label_names):
            raise ValueError(
                f"thresholds must be one for each of {len(self.label_names)} labels, got "
                f"{len(self.thresholds)}"
            )
        return self

    @property
    def cuts(self) -> tuple[float, ...]:
        """The logit threshold of each label: log(p / (1 − p)) for the probability threshold p."""
        thresholds = self.thresholds or (0.5,) * len(self.label_names)
        return tuple(math.log(limit / (1 - limit)) for limit in thresholds)

    @property
    def compared_as(self) -> str:
        """The objective whose losses compare predictions: a generated number is predicted as text,
        token by token."""
        is_written = self.kind.is_score and bool(self.label_words)
        return TEXT_TO_TEXT.name if is_written else self.objective

    @property
    def word_values(self) -> tuple[float, ...]:
        """The number that each label word stands for, if the answer is a number."""
        return tuple(map(float, self.label_words)) if self.kind.is_score else ()

    @property
    def kind(self) -> Kind:
        return KINDS[self.objective]

    @property
    def shown(self) -> Shown:
        """How the task appears to the user of an exported model.

        Raises:
            ModelError: exported models do not support this task yet.
        """
        if self.kind.shown is None or self.label_words:
            raise ModelError(
                f"the model {self.answers}, but an exported model predicts a class or a score; "
                "export a model with a classification head"
            )
        return self.kind.shown

    @property
    def learned(self) -> tuple[Gold, Answer]:
        """Kind of gold answer, and the form in which it is learned; a class with label words is
        learned as text."""
        return self.kind.gold, "text" if self.label_words else self.kind.answer

    def needs_gold(self, *, taught: bool) -> bool:
        """Whether every training row needs a gold answer.

        Args:
            taught: whether a teacher provides targets. Gold answers are then needed only for label
                words, and for marks, which define the positions of the predictions.
        """
        at_words = bool(self.label_words) or self.kind.answers_tokens
        return self.kind.has_gold and (not taught or at_words)

    @property
    def validated_by(self) -> tuple[str, ...]:
        """The metrics computed during training; the first one selects the best checkpoint."""
        return self.metrics if self.kind.selects is None else (self.kind.selects,)

    @property
    def has_language_head(self) -> bool:
        """Whether the model predicts tokens of the vocabulary, even if only to name a class."""
        return bool(self.label_words) or self.kind.predicts_words

    def prompt(self, texts: tuple[str, ...]) -> str:
        """Fill a row's texts into the template.

        Raises:
            DataError: the template refers to a text that the row does not have.

        Example:
            >>> Task(objective="classification", label_names=("a", "b"), max_length=8,
            ...      input_names=(), template="rte: {0} / {1}").prompt(("x", "y"))
            'rte: x / y'
        """
        return filled(self.template, texts)

    def texts_read(self, rows: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
        """The model's input texts for some rows, with the template applied if it generates text. An
        embedding model reads each text of a row separately: all first texts, then all second
        texts."""
        if self.embedding is not None:
            sides = zip(SIDES, zip(*rows, strict=True), strict=False)
            return [text for side, texts in sides for text in self.embedding.read_as(side, texts)]
        if self.kind.writes or self.label_words:
            return [(self.prompt(row),) for row in rows]
        return rows

    @property
    def answers(self) -> str:
        """How it answers, for a message: "the model names classes by words (bad, good)"."""
        if self.label_words:
            return f"names classes by words ({', '.join(self.label_words)})"
        return f"is made for {self.objective}"

    @property
    def num_labels(self) -> int:
        """Number of outputs of the classification head."""
        return len(self.label_names) or len(self.kind.outputs)

    @property
    def overlap(self) -> int:
        """Number of tokens shared by neighbouring windows."""
        return self.max_length // 3 if self.window_overlap is None else self.window_overlap

    @property
    def num_outputs(self) -> int | None:
        """Number of outputs per text of a model that runs in one pass; None: its hidden size."""
        return self.num_labels if self.embedding is None else self.embedding.width

    def write(self, folder: Path) -> None:
        """Write `task.json` to a model folder."""
        write_json(folder / TASK_FILE, self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def read(cls, folder: Path) -> Task:
        """Read the `task.json` of a model folder. `attar.models.foreign.task_of` also supports
        folders without one.

        Raises:
            ArtifactError: the file is missing, not JSON, or invalid.
        """
        file = folder / TASK_FILE
        try:
            return cls.model_validate(read_json(file))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise ArtifactError(
                f"{file} does not describe a task: {place}: {first['msg']} ({error.error_count()} "
                "mistakes); remove the folder and run again"
            ) from error


def number_words(low: float, high: float, step: float) -> tuple[str, ...]:
    """Multiples of `step` as text, from the one nearest to `low` to the one nearest to `high`.

    Example:
        >>> number_words(0.1, 1.0, 0.2)
        ('0.0', '0.2', '0.4', '0.6', '0.8', '1.0')
    """
    digits = max(-int(Decimal(str(step)).normalize().as_tuple().exponent), 0)
    first, last = round(low / step), round(high / step)
    return tuple(f"{number * step + 0.0:.{digits}f}" for number in range(first, last + 1))


def filled(template: str, texts: Sequence[str]) -> str:
    """Fill texts into a template with the placeholders {0} and {1}.

    Raises:
        DataError: the template refers to a text that the row does not have, or is invalid.
    """
    try:
        for _, name, spec, conversion in Formatter().parse(template):
            if name is not None and (spec or conversion or not name.isdecimal()):
                raise ValueError(f"{{{name}}} is not a plain place")  # "{0:>999999999}", "{0.real}"
        return template.format(*texts)
    except (IndexError, KeyError, ValueError) as error:
        known = ", ".join(f"{{{i}}}" for i in range(len(texts)))
        raise DataError(
            f"the model reads rows as {template!r}, a row has {known}; name the data's other text "
            "column, or other data"
        ) from error
