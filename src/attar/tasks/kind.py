"""What a kind of task is, in a few words: the columns of the table of tasks (`attar.tasks.table`).

Imports neither torch nor numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reads = Literal["texts", "running"]
Gold = Literal[
    "class", "labels", "number", "relevance", "similarity", "text", "tags", "quotes", "itself"
]
"""relevance and similarity: a number for two texts, or none, where the two belong together."""
Answer = Literal["row", "rank", "tags", "quote", "next", "spans", "masked", "text", "vector"]
Graph = Literal["one_pass", "causal", "encoder_decoder"]
MAX_ANSWER_TOKENS = 30
"""Of a part of a text that answers a question, as in BERT's code for SQuAD."""


@dataclass(frozen=True)
class Shown:
    """What the user of an exported model sees of its task."""

    verb: str
    """The method of `attar.load(folder)`, and the command of `attar`."""
    pipeline_tag: str
    """The Hugging Face Hub's name for it."""
    words: str
    """What the model answers with; {count} and {labels} stand for the names of classes."""
    snippet: tuple[str, ...]
    """Lines of Python that print the answer of `logits` (C,), or (T, C) of a model that answers
    every token, with `task`, `texts`, the encoded `row` and `np` at hand."""
    with_attar: tuple[str, ...] = (
        "label = repr(answer.label)[1:-1][:200]  # control characters escaped",
        "print(label, '' if answer.probability is None else f'{answer.probability:.3f}')",
        "if answer.is_cut:",
        "    print(f'cut at {model.task.max_length} tokens', file=sys.stderr)",
    )
    """The same of `answer`, what the verb gives for one row, with `model` at hand."""


@dataclass(frozen=True)
class Kind:
    name: str
    reads: Reads
    gold: Gold
    answer: Answer
    graph: Graph
    heads: tuple[str, ...]
    """Ends of the names of transformers' classes with its head; the first is for new models. None:
    the bare model answers."""
    classes: str
    """transformers' table from configs to these classes."""
    metrics: tuple[str, ...]
    """What is measured where the data does not say it; the first one is the default."""
    problem_type: str | None
    """transformers' name for it in the config of a classifier; None: its head is for words."""
    num_labels: tuple[int, int | None]
    """Fewest and most names of classes; None: no limit."""
    outputs: tuple[str, ...] = ("score",)
    """Names of a head's columns, where no classes name them."""
    selects: str | None = None
    """The metric that picks the best checkpoint, where the first one takes too long in training."""
    shown: Shown | None = None
    """None: an exported model cannot answer it yet."""

    def allows(self, num_labels: int) -> bool:
        """Whether its head may have this number of classes."""
        fewest, most = self.num_labels
        return num_labels >= fewest and (most is None or num_labels <= most)

    def has_width(self, columns: int) -> bool:
        """Whether its head may have this number of columns, with names of classes or without."""
        is_nameless = self.num_labels[1] == 0 and columns == len(self.outputs)
        return is_nameless or self.allows(columns)

    @property
    def is_running(self) -> bool:
        """Whether rows are running text, cut into blocks of tokens."""
        return self.reads == "running"

    @property
    def hides_spans(self) -> bool:
        """Whether spans of the text are hidden, others in every epoch, and written."""
        return self.answer == "spans"

    @property
    def hides(self) -> bool:
        """Whether a part of the text is hidden, another one in every epoch, and predicted."""
        return self.answer in ("spans", "masked")

    @property
    def has_gold(self) -> bool:
        """Whether a row needs an answer of its own beside its text."""
        return self.gold not in ("itself", "similarity")

    @property
    def has_classes(self) -> bool:
        """Whether the columns of its logits have names: one of them is the answer, or any."""
        return self.gold in ("class", "labels")

    @property
    def gives_sets(self) -> bool:
        """Whether any number of the classes may be right at once."""
        return self.gold == "labels"

    @property
    def has_labels(self) -> bool:
        """Whether names of classes or of tags are found in its data."""
        return self.gold in ("class", "labels", "tags")

    @property
    def answers_tokens(self) -> bool:
        """Whether its head answers every token of a text, so that a long text can be read in
        windows."""
        return self.answer in ("tags", "quote")

    @property
    def may_be_words(self) -> bool:
        """Whether its answer, a class or a number, can be written as one of some words."""
        return self.gold in ("class", "number")

    @property
    def is_score(self) -> bool:
        """Whether the answer is a number."""
        return self.gold in ("number", "relevance")

    @property
    def asks(self) -> bool:
        """Whether a row is a question and the text that may answer it."""
        return self.answer == "quote"

    @property
    def gives_distribution(self) -> bool:
        """Whether its logits, those of one text or one token, are of classes, tags or words."""
        return self.gold in ("class", "tags") or self.predicts_words

    @property
    def predicts_words(self) -> bool:
        """Whether its own head predicts tokens of the vocabulary."""
        return self.gold in ("text", "itself")

    @property
    def ranks(self) -> bool:
        """Whether rows are candidates for a query, which are put into an order."""
        return self.answer == "rank"

    @property
    def embeds(self) -> bool:
        """Whether each text is read by itself, and the answer is its vector."""
        return self.answer == "vector"

    @property
    def writes(self) -> bool:
        """Whether the answer is a text that the model generates."""
        return self.answer == "text"
