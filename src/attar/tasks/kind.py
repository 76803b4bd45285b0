"""What a kind of task is: what a row holds, what is predicted from it, and by which model.

The problem: a name such as "regression" compared in thirty files makes a new kind of task an edit
in each of them. The idea: a kind is a few words, and code asks for the word it depends on.

    reads     what a row holds          a text or two, running text
    gold      what the answer is        a class, a number, a text, or the row's own tokens
    answer    the shape of an answer    one a row, the next token, a text
    graph     how the model runs        one pass, causal, encoder-decoder

Code that differs by a word is a table with that word as its key, on the floor it belongs to.
Imports neither torch nor
numpy, since configs read the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reads = Literal["texts", "running"]
Gold = Literal["class", "number", "text", "itself"]
Answer = Literal["row", "next", "text"]
Graph = Literal["one_pass", "causal", "encoder_decoder"]


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
    """Lines of Python that print the answer of `logits` (C,), with `task` and `np` at hand."""


@dataclass(frozen=True)
class Kind:
    """One row of the table of tasks."""

    name: str
    reads: Reads
    gold: Gold
    answer: Answer
    graph: Graph
    heads: tuple[str, ...]
    """Ends of the names of transformers' classes with its head; the first is for new models."""
    classes: str
    """transformers' table from configs to these classes."""
    metrics: tuple[str, ...]
    """What is measured where the data does not say it; the first one is the default."""
    problem_type: str | None
    """transformers' name for it in the config of a classifier; None: its head is for words."""
    num_labels: tuple[int, int | None]
    """Fewest and most names of classes; None: no limit."""
    selects: str | None = None
    """The metric that picks the best checkpoint, where the first one takes too long in training."""
    shown: Shown | None = None
    """None: an exported model cannot answer it yet."""

    @property
    def is_running(self) -> bool:
        """Whether rows are running text, cut into blocks of tokens."""
        return self.reads == "running"

    @property
    def has_gold(self) -> bool:
        """Whether a row needs an answer of its own beside its text."""
        return self.gold != "itself"

    @property
    def has_classes(self) -> bool:
        return self.gold == "class"

    @property
    def is_score(self) -> bool:
        """Whether the answer is a number."""
        return self.gold == "number"

    @property
    def predicts_words(self) -> bool:
        """Whether its own head predicts tokens of the vocabulary."""
        return self.gold in ("text", "itself")

    @property
    def writes(self) -> bool:
        """Whether the answer is a text that the model generates."""
        return self.answer == "text"
