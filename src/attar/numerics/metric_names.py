"""Names, directions and bounds of the metrics. Imports nothing heavy, so that checks can use it."""

from __future__ import annotations

from collections.abc import Iterable

CLASSES = ("accuracy", "matthews", "f1", "macro_f1", "micro_f1")
"""Classification metrics. f1 is that of class 1, macro_f1 the mean over classes, micro_f1 is
computed from all decisions together; the last two are also used for multi-label tasks."""
CALIBRATION = ("ece",)
"""Calibration metrics: the difference between confidence and accuracy."""
SCORES = ("pearson", "spearman")
"""Regression metrics."""
RANKING = ("ndcg@10", "mrr@10", "recall@1", "recall@10")
"""Retrieval metrics, 0..1, averaged over queries."""
ROUGE = ("rouge1", "rouge2", "rougeL")
"""Metrics of generated texts, 0..1."""
SPANS = ("span_f1", "span_precision", "span_recall")
"""Metrics of entities, which are correct only with both ends and the label."""
QUOTES = ("squad_f1", "exact_match")
"""Metrics of extractive question answering, as in SQuAD's script."""
LANGUAGE = ("nll", "perplexity", "bits_per_byte")
"""Metrics of running text: nats per token, its exponential, bits per byte of text."""
LEADING = "bits_per_byte"
"""Main metric of language models, the only one that is comparable across tokenizers."""
AVERAGES = ("average", "average_with_storycloze")
"""Averages over zero-shot tasks. StoryCloze requires a license, so there are averages with and
without it, to keep results of different users comparable."""
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
"""Accuracies of zero-shot tasks, named like the tasks."""
METRIC_NAMES = (*CLASSES, *SCORES, *RANKING, *SPANS, *QUOTES, *ROUGE, *LANGUAGE)
LOWER_IS_BETTER = frozenset({*LANGUAGE, *CALIBRATION, "loss"})
"""Metrics for which lower is better; for all others, higher is better."""
BOUNDS = {
    **dict.fromkeys((*CLASSES, *CALIBRATION, *RANKING, *ROUGE), (0.0, 1.0)),
    **dict.fromkeys(("matthews", *SCORES), (-1.0, 1.0)),
}
"""Metric → minimum and maximum possible value."""


def leading_first(metrics: Iterable[str]) -> list[str]:
    """The distinct metrics, with the main metric first.

    Example:
        >>> leading_first(["nll", "perplexity", "bits_per_byte"])
        ['bits_per_byte', 'nll', 'perplexity']
    """
    return sorted(dict.fromkeys(metrics), key=lambda metric: metric != LEADING)


def told(metrics: Iterable[str]) -> list[str]:
    """The metrics whose differences are reported in words. For running text only the main one,
    because its metrics are equivalent.

    Example:
        >>> told(["nll", "perplexity", "bits_per_byte"]), told(["accuracy", "f1"])
        (['bits_per_byte'], ['accuracy', 'f1'])
    """
    found = leading_first(metrics)
    return [metric for metric in found if metric not in LANGUAGE or metric == found[0]]
