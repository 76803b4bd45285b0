"""One of several classes for a text or for a pair of texts."""

from __future__ import annotations

from attar.numerics.metric_names import CLASSES
from attar.tasks.kind import Kind, Shown

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
