"""What a fine-tuned model is for: the sidecar `task.json` of its folder. Imports no torch.

A Hugging Face `config.json` says what a network is; it does not say how its texts were cut, which
inputs it was fed, or by which figure it was judged. Everything that comes after training (quantize,
export, evaluate, predict) reads this file instead of asking the recipe again, so that a model
folder can be carried away and still be used correctly. A classifier that was fine-tuned elsewhere
has no such file; what its `config.json` says is taken instead (`foreign`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from attar.artifacts import read_json, write_json
from attar.config import Config
from attar.errors import ArtifactError, DataError
from attar.untrusted import has_entry

TASK_FILE = "task.json"
MAX_TOKENS = 2**20
"""Of a text; the longest that published models read."""
MAX_BEAMS = 1000
"""Each holds a copy of the decoder's cache."""

Objective = Literal["classification", "regression", "causal_lm", "text_to_text"]
HEADS = (
    "ForSequenceClassification",
    "ForConditionalGeneration",
    "ForCausalLM",
    "LMHeadModel",
)
"""Ends of the names of architectures that say what a model is for."""


class Generation(Config):
    """How an encoder-decoder chooses its words; the names and their meanings are transformers'."""

    num_beams: int = Field(default=1, ge=1, le=MAX_BEAMS)
    max_new_tokens: int = Field(default=128, gt=0, le=MAX_TOKENS)
    min_new_tokens: int = Field(default=0, ge=0)
    length_penalty: float = 1.0
    """Of beams: a score is divided by length ** length_penalty."""
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    """Runs of so many tokens occur once at most; 0: no limit."""
    early_stopping: bool = False
    """Of beams: stop as soon as num_beams texts are complete."""
    forced_bos_token_id: int | None = None
    """The first token written."""
    forced_eos_token_id: int | None = None
    """The last token of a text that reaches its limit."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Generation:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}, above max_new_tokens = "
                f"{self.max_new_tokens}"
            )
        return self


class Task(Config):
    """What goes in, what comes out, and what counts as good."""

    objective: Objective
    label_names: tuple[str, ...] = ()
    """Name of each class in the order of the logits; empty or one name for regression; empty for
    text_to_text."""
    order_is_given: bool = Field(default=False, exclude=True)
    """That order was set or published (`TextData.order_is_given`), so LABEL_i may be class i. Known
    while data is at hand, and not written: a trained model's classes have names."""
    max_length: int = Field(gt=0, le=MAX_TOKENS)
    """Tokens; longer texts are cut."""
    input_names: tuple[str, ...]
    """Model inputs made from a text, such as input_ids and attention_mask."""
    num_texts: Literal[1, 2] | None = None
    """Texts of a row: 2 for a model of pairs. Written from the columns of its data; None: not said
    (a folder of an older attar, or a model that was fine-tuned elsewhere and is not exported)."""
    metrics: tuple[str, ...] = ()
    """The first one selects the best model."""
    label_words: tuple[str, ...] = ()
    """What a model with a language head writes for each class, in the order of label_names; empty:
    a classifier's head answers."""
    template: str = "{0}"
    """The text such a model reads, with {0} and {1} for a row's texts."""
    max_target_length: int | None = Field(default=None, gt=0, le=MAX_TOKENS)
    """Tokens of a target text; text_to_text only."""
    generation: Generation | None = None
    """text_to_text only."""

    @model_validator(mode="after")
    def _generation_fits_the_objective(self) -> Task:
        is_text = self.objective == "text_to_text"
        if is_text and (self.label_names or self.generation is None):
            raise ValueError(
                f"text_to_text needs generation and no label_names, got {len(self.label_names)} "
                f"label_names and generation = {self.generation}"
            )
        if not is_text and (self.generation or self.max_target_length):
            raise ValueError(
                f"generation and max_target_length belong to text_to_text, not to {self.objective}"
            )
        return self

    @model_validator(mode="after")
    def _labels_fit_the_objective(self) -> Task:
        count = len(self.label_names)
        if self.label_words and len(set(self.label_words)) != count:
            raise ValueError(
                f"label_words must be distinct, one for each of {list(self.label_names)}, got "
                f"{list(self.label_words)}"
            )
        if len(set(self.label_names)) != count:
            raise ValueError(f"label_names must be distinct, got {list(self.label_names)}")
        if self.objective == "classification" and count < 2:
            raise ValueError(f"classification needs at least 2 label_names, got {count}")
        if self.objective == "causal_lm" and count:
            raise ValueError(f"causal_lm predicts the next token, got {count} label_names")
        if self.objective == "regression" and count > 1:
            raise ValueError(f"regression predicts one number, got {count} label_names")
        return self

    @property
    def has_language_head(self) -> bool:
        """Whether words are predicted, be it to name a class."""
        return bool(self.label_words) or self.objective in ("causal_lm", "text_to_text")

    def prompt(self, texts: tuple[str, ...]) -> str:
        """A row's texts in the template.

        Raises:
            DataError: the template names a text that the row does not have.

        Example:
            >>> Task(objective="classification", label_names=("a", "b"), max_length=8,
            ...      input_names=(), template="rte: {0} / {1}").prompt(("x", "y"))
            'rte: x / y'
        """
        return filled(self.template, texts)

    def texts_read(self, rows: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
        """What the model is given of some rows: in its template, where it answers with words."""
        if self.objective == "text_to_text" or self.label_words:
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
        """Width of a classifier's head."""
        return len(self.label_names) if self.objective == "classification" else 1

    def write(self, folder: Path) -> None:
        """Put `task.json` into a model folder."""
        write_json(folder / TASK_FILE, self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def read(cls, folder: Path) -> Task:
        """What a model folder is for: its `task.json`, or what the config of a classifier or of a
        generator says.

        Raises:
            ArtifactError: the file is no JSON or says something impossible; there is none, and the
                model has no head that says it.
            ModelError: a config that describes no task that attar knows.
        """
        file = folder / TASK_FILE
        if not has_entry(file):
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


def filled(template: str, texts: Sequence[str]) -> str:
    """A row's texts in a template, in which {0} and {1} stand for them.

    Raises:
        DataError: the template names a text that the row does not have, or cannot be read.
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


def says_its_task(folder: Path) -> bool:
    """Whether a model folder says what it is for: by `task.json`, or by the head in its config."""
    if has_entry(folder / TASK_FILE):
        return True
    file = folder / "config.json"
    plain = read_json(file) if has_entry(file) else {}
    names = plain.get("architectures") if isinstance(plain, dict) else None
    return isinstance(names, list) and bool(names) and str(names[0]).endswith(HEADS)


def find_model_folder(path: Path) -> Path:
    """The model folder of an artifact: its `model/` where it has one, else the folder itself."""
    return path / "model" if (path / "model").is_dir() else path
