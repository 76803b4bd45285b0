"""A number for a text or for a pair of texts."""

from __future__ import annotations

from attar.numerics.metric_names import SCORES
from attar.tasks.kind import Kind, Shown

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
