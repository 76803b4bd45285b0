"""The table of tasks: the content of a row, what is predicted from it, and the kind of model.

The problem: if a name such as "regression" is compared in thirty files, a new kind of task must be
added in each of them. The idea: a kind is described by a few properties, and code checks the
property it depends on.

    reads     content of a row       one or two texts, running text
    gold      the gold answer        a class, some labels, a number, the relevance or similarity of
                                     two texts, a text, tags of words, parts of the text, or the
                                     row's own tokens
    answer    form of the answer     one per row, a rank among a query's rows, a tag per word, a
                                     part of the text, the next token, hidden spans, masked tokens,
                                     a text, a vector
    graph     how the model runs     one pass, causal, encoder-decoder

Code that differs by a property has a table keyed by it, in the package where the code belongs.
Configs import this table, so it imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from attar.numerics.metric_names import (
    CLASSES,
    LANGUAGE,
    QUOTES,
    RANKING,
    ROUGE,
    SCORES,
    SPANS,
)
from attar.tasks.kind import MAX_ANSWER_TOKENS, Answer, Gold, Graph, Kind, Reads, Shown
from attar.tasks.tagging import WORD

__all__ = ["KINDS", "MAX_ANSWER_TOKENS", "Answer", "Gold", "Graph", "Kind", "Reads", "Shown"]

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
            # exp(max − max) = 1, so the largest softmax probability is 1 divided by the sum
            "print(label[:200], f'{1 / np.exp(logits - logits.max()).sum():.3f}')",
        ),
    ),
)
"""One of several classes for a text or a pair of texts."""
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
        pipeline_tag="text-classification",  # the Hub's tag for scores as well
        words="a number",
        snippet=("print(f'{logits[0]:.4f}')",),
    ),
)
"""A number for a text or a pair of texts."""
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
        words="any number of {count} labels: {labels}",
        snippet=(
            "limits = task.get('thresholds') or [0.5] * len(logits)",
            "shares = 1 / (1 + np.exp(-logits))",
            "for label, share, limit in zip(task['label_names'], shares, limits):",
            "    if share >= limit:",
            "        print(repr(label)[1:-1][:200], f'{share:.3f}')  # control characters escaped",
        ),
    ),
)
"""Any number of labels, including none, for a text or a pair of texts."""
TOKEN_CLASSIFICATION = Kind(
    name="token_classification",
    reads="texts",
    gold="tags",
    answer="tags",
    graph="one_pass",
    heads=("ForTokenClassification",),
    classes="MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    metrics=SPANS,
    problem_type=None,
    num_labels=(2, None),
    shown=Shown(
        verb="tag",
        pipeline_tag="token-classification",
        words="the spans of the text that it finds, from these tags of words: {labels}",
        snippet=(
            "import re",
            "names, found, last = task['label_names'], [], 0",
            "pieces = [i for i, special in enumerate(row.special_tokens_mask) if not special]",
            f"for word in re.finditer({WORD!r}, texts[0]):",
            "    begin, end = word.span()",
            "    # the first token of a word has its tag",
            "    places = ((i, *row.offsets[i]) for i in pieces)",
            "    piece = next((i for i, a, b in places if a < end and b > begin), None)",
            "    tag = 'O' if piece is None else names[logits[piece].argmax()]",
            "    prefix, _, label = tag.partition('-')",
            "    if prefix == 'B':",
            "        found.append([begin, end, label])",
            "    elif prefix == 'I' and found and found[-1][1:] == [last, label]:",
            "        found[-1][1] = end",
            "    last = end",
            "for begin, end, label in found:",
            "    print(begin, end, repr(label)[1:-1], repr(texts[0][begin:end])[1:-1])",
        ),
        with_attar=(
            "for one in answer:",
            "    print(one.start, one.end, repr(one.label)[1:-1], repr(one.text)[1:-1])",
        ),
    ),
)
"""A tag for each word, to mark parts of the text: names, places, products."""
QUESTION_ANSWERING = Kind(
    name="question_answering",
    reads="texts",
    gold="quotes",
    answer="quote",
    graph="one_pass",
    heads=("ForQuestionAnswering",),
    classes="MODEL_FOR_QUESTION_ANSWERING_MAPPING",
    metrics=QUOTES,
    problem_type=None,
    num_labels=(0, 0),
    outputs=("start", "end"),
    shown=Shown(
        verb="answer",
        pipeline_tag="question-answering",
        words="the span of the second text that answers the first, or with nothing",
        snippet=(
            "is_text = np.array([i == 1 for i in row.sequence_ids])",
            "first, last = np.where(is_text[:, None], logits, -np.inf).T",
            "place = np.arange(len(first))",
            "length = place - place[:, None] + 1  # of an answer, in tokens",
            f"allowed = (length > 0) & (length <= {MAX_ANSWER_TOKENS})",
            "score = np.where(allowed, first[:, None] + last, -np.inf)",
            "begin, end = np.unravel_index(score.argmax(), score.shape)",
            "limit = task.get('no_answer_threshold')",
            "has_none = limit is not None and logits[0].sum() - score.max() > limit",
            "a, b = (0, 0) if has_none else (row.offsets[begin][0], row.offsets[end][1])",
            "print(a, b, repr(texts[1][a:b])[1:-1])",
        ),
        with_attar=("print(answer.start, answer.end, repr(answer.text)[1:-1])",),
    ),
)
"""The part of a text that answers a question about it, or none (SQuAD)."""
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
"""The next token of running text, given the previous ones."""
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
"""A target text for an input text, such as a summary. Validation uses the likelihood of the
targets, because generating texts is slow."""
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
"""Hidden spans of running text: T5's pre-training. There is no metric per byte, because sentinels
are predicted too."""
MASKED_LM = Kind(
    name="masked_lm",
    reads="running",
    gold="itself",
    answer="masked",
    graph="one_pass",
    heads=("ForMaskedLM",),
    classes="MODEL_FOR_MASKED_LM_MAPPING",
    metrics=LANGUAGE[:2],
    problem_type=None,
    num_labels=(0, 0),
)
"""Masked tokens of running text, given the tokens on both sides: BERT's pre-training, also used to
adapt to a domain. Perplexity is that of the masked tokens, each given all other tokens."""
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
        words="a score, which is higher if the second text answers the first better",
        snippet=("print(f'{logits[0]:.4f}')",),
    ),
)
"""How well a passage answers a query, read together; the passages of a query are ranked by it."""
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
        words="a vector; the cosine of two vectors is the similarity of their texts",
        snippet=("print(json.dumps([round(float(x), 6) for x in logits]))",),
    ),
)
"""A vector for each text, so that texts with similar meaning have similar vectors. Rows with a
score are evaluated by the correlation of cosines with the scores (spearman); rows without one, by
retrieving the second text of a row among all second texts with the first."""

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        *(CLASSIFICATION, REGRESSION, MULTI_LABEL, TOKEN_CLASSIFICATION, QUESTION_ANSWERING),
        *(CAUSAL_LM, TEXT_TO_TEXT, SPAN_CORRUPTION, MASKED_LM, RERANKING, SENTENCE_EMBEDDING),
    )
}
"""Every kind of task, by the name used for `objective` in a recipe."""

if TYPE_CHECKING:
    Objective = str
else:
    Objective = Literal[tuple(KINDS)]
    """Name of a kind in a config; pydantic rejects any other and lists these."""
