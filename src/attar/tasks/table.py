"""The table of tasks: what a row holds, what is predicted from it, and by which model.

The problem: a name such as "regression" compared in thirty files makes a new kind of task an edit
in each of them. The idea: a kind is a few words, and code asks for the word it depends on.

    reads     what a row holds          a text or two, running text
    gold      what the answer is        a class, some labels, a number, how relevant or alike two
                                        texts are, a text, or the row's own tokens
    answer    the shape of an answer    one a row, a row's rank for its query, the next token,
                                        hidden spans, a text, a vector
    graph     how the model runs        one pass, causal, encoder-decoder

Code that differs by a word is a table with that word as its key, on the floor it belongs to.
Configs read this table, so it imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from attar.numerics.metric_names import CLASSES, LANGUAGE, RANKING, ROUGE, SCORES

Reads = Literal["texts", "running"]
Gold = Literal["class", "labels", "number", "relevance", "similarity", "text", "itself"]
"""relevance and similarity: a number for two texts, or none, where the two belong together."""
Answer = Literal["row", "rank", "next", "spans", "text", "vector"]
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
    selects: str | None = None
    """The metric that picks the best checkpoint, where the first one takes too long in training."""
    shown: Shown | None = None
    """None: an exported model cannot answer it yet."""

    def allows(self, num_labels: int) -> bool:
        """Whether its head may have this number of classes."""
        fewest, most = self.num_labels
        return num_labels >= fewest and (most is None or num_labels <= most)

    @property
    def is_running(self) -> bool:
        """Whether rows are running text, cut into blocks of tokens."""
        return self.reads == "running"

    @property
    def hides_spans(self) -> bool:
        """Whether spans of the text are hidden, others in every epoch, and written."""
        return self.answer == "spans"

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
    def may_be_words(self) -> bool:
        """Whether its answer, a class or a number, can be written as one of some words."""
        return self.gold in ("class", "number")

    @property
    def is_score(self) -> bool:
        """Whether the answer is a number."""
        return self.gold in ("number", "relevance")

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


CLASSIFICATION = Kind(
    name="classification",
    reads="texts",
    gold="class",
    answer="row",
    graph="one_pass",
    heads=("ForSequenceClassification",),
    classes="MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    metrics=CLASSES[:1],
    problem_type="single_label_classification",
    num_labels=(2, None),
    shown=Shown(
        verb="predict",
        pipeline_tag="text-classification",
        words="one of {count} labels: {labels}",
        snippet=(
            "label = repr(task['label_names'][logits.argmax()])[1:-1]"
            "  # control characters escaped",
            # exp(max − max) = 1, so the largest share of the softmax is 1 over the sum
            "print(label[:200], f'{1 / np.exp(logits - logits.max()).sum():.3f}')",
        ),
    ),
)
"""One of several classes for a text or for a pair of texts."""
REGRESSION = Kind(
    name="regression",
    reads="texts",
    gold="number",
    answer="row",
    graph="one_pass",
    heads=("ForSequenceClassification",),
    classes="MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    metrics=SCORES,
    problem_type="regression",
    num_labels=(0, 1),
    shown=Shown(
        verb="predict",
        pipeline_tag="text-classification",  # the Hub's tag of scores too
        words="a number",
        snippet=("print(f'{logits[0]:.4f}')",),
    ),
)
"""A number for a text or for a pair of texts."""
MULTI_LABEL = Kind(
    name="multi_label",
    reads="texts",
    gold="labels",
    answer="row",
    graph="one_pass",
    heads=("ForSequenceClassification",),
    classes="MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    metrics=("micro_f1", "macro_f1"),
    problem_type="multi_label_classification",
    num_labels=(2, None),
    shown=Shown(
        verb="predict",
        pipeline_tag="text-classification",
        words="any of {count} labels, each with a probability of its own: {labels}",
        snippet=(
            "limits = task.get('thresholds') or [0.5] * len(logits)",
            "shares = 1 / (1 + np.exp(-logits))",
            "for label, share, limit in zip(task['label_names'], shares, limits):",
            "    if share >= limit:",
            "        print(repr(label)[1:-1][:200], f'{share:.3f}')  # control characters escaped",
        ),
    ),
)
"""Any number of several labels, none included, for a text or for a pair of texts."""
CAUSAL_LM = Kind(
    name="causal_lm",
    reads="running",
    gold="itself",
    answer="next",
    graph="causal",
    heads=("ForCausalLM", "LMHeadModel"),
    classes="MODEL_FOR_CAUSAL_LM_MAPPING",
    metrics=LANGUAGE,
    problem_type=None,
    num_labels=(0, 0),
)
"""The next token of running text, from those before it."""
TEXT_TO_TEXT = Kind(
    name="text_to_text",
    reads="texts",
    gold="text",
    answer="text",
    graph="encoder_decoder",
    heads=("ForConditionalGeneration",),
    classes="MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    metrics=ROUGE,
    selects=LANGUAGE[0],
    problem_type=None,
    num_labels=(0, 0),
)
"""A text for a text, such as a summary. Validation judges texts by their likelihood, because
generating them takes long."""
SPAN_CORRUPTION = Kind(
    name="span_corruption",
    reads="running",
    gold="itself",
    answer="spans",
    graph="encoder_decoder",
    heads=TEXT_TO_TEXT.heads,
    classes=TEXT_TO_TEXT.classes,
    metrics=LANGUAGE[:2],
    problem_type=None,
    num_labels=(0, 0),
)
"""The spans that are hidden of running text: how T5 is pre-trained. Bytes are no measure of it,
because sentinels are predicted too."""
RERANKING = Kind(
    name="reranking",
    reads="texts",
    gold="relevance",
    answer="rank",
    graph="one_pass",
    heads=REGRESSION.heads,
    classes=REGRESSION.classes,
    metrics=RANKING[:2],
    problem_type="regression",
    num_labels=(0, 1),
    shown=Shown(
        verb="predict",
        pipeline_tag="text-ranking",
        words="a number, which is higher the better the second text answers the first",
        snippet=("print(f'{logits[0]:.4f}')",),
    ),
)
"""How well a passage answers a query, read together; the passages of a query are put into an
order by it."""
SENTENCE_EMBEDDING = Kind(
    name="sentence_embedding",
    reads="texts",
    gold="similarity",
    answer="vector",
    graph="one_pass",
    heads=(),
    classes="MODEL_MAPPING",
    metrics=("spearman", *RANKING),
    problem_type=None,
    num_labels=(0, 0),
    shown=Shown(
        verb="embed",
        pipeline_tag="sentence-similarity",
        words="a vector, whose cosine with that of another text says how alike the two are",
        snippet=("print(json.dumps([round(float(x), 6) for x in logits]))",),
    ),
)
"""A vector for each text, so that texts with the same meaning have like vectors. Of rows with a
score, it is measured by the cosines' correlation with the scores (spearman); of rows without one,
by how well the second text of a row is found among all second texts by the first."""

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        *(CLASSIFICATION, REGRESSION, MULTI_LABEL, CAUSAL_LM, TEXT_TO_TEXT),
        *(SPAN_CORRUPTION, RERANKING, SENTENCE_EMBEDDING),
    )
}
"""Every kind of task by the name that `objective` has in a recipe."""

if TYPE_CHECKING:
    Objective = str
else:
    Objective = Literal[tuple(KINDS)]
    """A kind's name in a config; pydantic refuses any other and lists these."""
