"""The columns of the table of tasks (`attar.tasks.table`): the properties of a kind of task.

Imports neither torch nor numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reads = Literal["texts", "running"]
Gold = Literal[
    "class", "labels", "number", "relevance", "similarity", "text", "tags", "quotes", "itself"
]
"""relevance and similarity: a number for two texts; without one, the two texts match."""
Answer = Literal["row", "rank", "tags", "quote", "next", "spans", "masked", "text", "vector"]
Graph = Literal["one_pass", "causal", "encoder_decoder"]
MAX_ANSWER_TOKENS = 30
"""Maximum length of an extracted answer, as in BERT's code for SQuAD."""


@dataclass(frozen=True)
class Shown:
    """How a task appears to the user of an exported model."""

    verb: str
    """The method of `attar.load(folder)`, and the command of `attar`."""
    pipeline_tag: str
    """The Hugging Face Hub's name of the task."""
    words: str
    """Description of the answers; {count} and {labels} are replaced by the classes."""
    snippet: tuple[str, ...]
    """Lines of Python that print the answer from `logits` (C,), or (T, C) for a model with one
    prediction per token. `task`, `texts`, the encoded `row` and `np` are defined."""
    with_attar: tuple[str, ...] = (
        "label = repr(answer.label)[1:-1][:200]  # control characters escaped",
        "print(label, '' if answer.probability is None else f'{answer.probability:.3f}')",
        "if answer.is_cut:",
        "    print(f'cut at {model.task.max_length} tokens', file=sys.stderr)",
    )
    """Lines of Python that print `answer`, the result of the verb for one row. `model` is
    defined."""


@dataclass(frozen=True)
class Kind:
    name: str
    reads: Reads
    gold: Gold
    answer: Answer
    graph: Graph
    heads: tuple[str, ...]
    """Suffixes of the transformers classes with this head; new models use the first. None: the
    model is used without a head."""
    classes: str
    """Name of transformers' mapping from configs to these classes."""
    metrics: tuple[str, ...]
    """Metrics used if the data does not define any; the first one is the default."""
    problem_type: str | None
    """transformers' name of the task in a classifier's config; None: not a classifier."""
    num_labels: tuple[int, int | None]
    """Minimum and maximum number of class names; None: no maximum."""
    outputs: tuple[str, ...] = ("score",)
    """Names of the head's outputs, if there are no class names."""
    selects: str | None = None
    """The metric that selects the best checkpoint, if the first one would take too long in
    training."""
    shown: Shown | None = None
    """None: exported models do not support this task yet."""

    def allows(self, num_labels: int) -> bool:
        """Whether the head may have this number of classes."""
        fewest, most = self.num_labels
        return num_labels >= fewest and (most is None or num_labels <= most)

    def has_width(self, columns: int) -> bool:
        """Whether the head may have this number of outputs, named by classes or not."""
        is_nameless = self.num_labels[1] == 0 and columns == len(self.outputs)
        return is_nameless or self.allows(columns)

    @property
    def is_running(self) -> bool:
        """Whether rows are running text, cut into blocks of tokens."""
        return self.reads == "running"

    @property
    def hides_spans(self) -> bool:
        """Whether the model writes hidden spans of the text, different ones in every epoch."""
        return self.answer == "spans"

    @property
    def hides(self) -> bool:
        """Whether the model predicts a hidden part of the text, a different one in every epoch."""
        return self.answer in ("spans", "masked")

    @property
    def only_a_base(self) -> str | None:
        """Why its model is there to be fine-tuned and not to be deployed; None: it answers."""
        if self.answer != "masked":
            return None
        return (
            f"was trained for {self.name}, so it is a base model without a task; fine-tune it in "
            "another train step, and name that step here"
        )

    @property
    def has_gold(self) -> bool:
        """Whether a row needs an answer in addition to its text."""
        return self.gold not in ("itself", "similarity")

    @property
    def has_classes(self) -> bool:
        """Whether the logits belong to named classes, of which one or several are right."""
        return self.gold in ("class", "labels")

    @property
    def gives_sets(self) -> bool:
        """Whether any number of classes may be right at once."""
        return self.gold == "labels"

    @property
    def has_labels(self) -> bool:
        """Whether its data contains names of classes or tags."""
        return self.gold in ("class", "labels", "tags")

    @property
    def answers_tokens(self) -> bool:
        """Whether the head makes a prediction for every token, so that a long text can be read in
        windows."""
        return self.answer in ("tags", "quote")

    @property
    def may_be_words(self) -> bool:
        """Whether the answer, a class or a number, can be expressed as a label word."""
        return self.gold in ("class", "number")

    @property
    def is_score(self) -> bool:
        """Whether the answer is a number."""
        return self.gold in ("number", "relevance")

    @property
    def asks(self) -> bool:
        """Whether a row is a question and a text that may answer it."""
        return self.answer == "quote"

    @property
    def gives_distribution(self) -> bool:
        """Whether the logits, for a text or for each token, are a distribution over classes, tags
        or words.
        """
        return self.gold in ("class", "tags") or self.predicts_words

    @property
    def predicts_words(self) -> bool:
        """Whether its usual head predicts tokens of the vocabulary."""
        return self.gold in ("text", "itself")

    @property
    def ranks(self) -> bool:
        """Whether rows are candidates that are ranked for a query."""
        return self.answer == "rank"

    @property
    def embeds(self) -> bool:
        """Whether each text is read separately, and the answer is its vector."""
        return self.answer == "vector"

    @property
    def writes(self) -> bool:
        """Whether the answer is generated text."""
        return self.answer == "text"
