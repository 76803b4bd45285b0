"""Names of the metrics and which way each is better. Imports nothing, so a check may read it."""

from __future__ import annotations

from collections.abc import Iterable

CLASSES = ("accuracy", "matthews", "f1", "macro_f1", "micro_f1")
"""Metrics of predicted classes. f1 is that of class 1, macro_f1 the mean over the classes, micro_f1
that of all decisions together; the last two are also those of sets of labels."""
CALIBRATION = ("ece",)
"""Metrics of how far confidence is from the share of right answers."""
SCORES = ("pearson", "spearman")
"""Metrics of predicted numbers."""
RANKING = ("ndcg@10", "mrr@10", "recall@1", "recall@10")
"""Metrics of what is found for a query, 0..1, means over queries."""
ROUGE = ("rouge1", "rouge2", "rougeL")
"""Metrics of written texts, 0..1."""
SPANS = ("span_f1", "span_precision", "span_recall")
"""Metrics of marked parts of a text, each right only with both its ends and its label."""
QUOTES = ("squad_f1", "exact_match")
"""Metrics of answers that are parts of a text, as SQuAD's script has them."""
LANGUAGE = ("nll", "perplexity", "bits_per_byte")
"""Metrics of running text: nats per token, its exponential, bits per byte of text."""
LEADING = "bits_per_byte"
"""Of a language model: it alone compares models with different tokenizers."""
AVERAGES = ("average", "average_with_storycloze")
"""Over zero-shot tasks. StoryCloze, whose rows not everyone may have, has an average of its own, so
that figures of different users can be compared."""
ZERO_SHOT = (
    *AVERAGES,
    "hellaswag",
    "lambada",
    "winogrande",
    "openbookqa",
    "arc_easy",
    "arc_challenge",
    "piqa",
    "social_iqa",
    "storycloze",
)
"""Accuracies of zero-shot tasks, each under its task's name."""
METRIC_NAMES = (*CLASSES, *SCORES, *RANKING, *SPANS, *QUOTES, *ROUGE, *LANGUAGE)
LOWER_IS_BETTER = frozenset({*LANGUAGE, *CALIBRATION, "loss"})
"""Metrics of which the smallest is the best; of all others it is the largest."""
BOUNDS = {
    **dict.fromkeys((*CLASSES, *CALIBRATION, *RANKING, *ROUGE), (0.0, 1.0)),
    **dict.fromkeys(("matthews", *SCORES), (-1.0, 1.0)),
}
"""Metric → the lowest and the highest value it can have."""


def leading_first(metrics: Iterable[str]) -> list[str]:
    """Each metric once, the one that a headline tells first.

    Example:
        >>> leading_first(["nll", "perplexity", "bits_per_byte"])
        ['bits_per_byte', 'nll', 'perplexity']
    """
    return sorted(dict.fromkeys(metrics), key=lambda metric: metric != LEADING)


def told(metrics: Iterable[str]) -> list[str]:
    """The metrics whose differences are put into words: of those of running text, which rise and
    fall together, only the leading one.

    Example:
        >>> told(["nll", "perplexity", "bits_per_byte"]), told(["accuracy", "f1"])
        (['bits_per_byte'], ['accuracy', 'f1'])
    """
    found = leading_first(metrics)
    return [metric for metric in found if metric not in LANGUAGE or metric == found[0]]
