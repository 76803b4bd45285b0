"""A text for a text, such as a summary. Validation judges texts by their likelihood, because
generating them takes long."""

from __future__ import annotations

from attar.numerics.metric_names import LANGUAGE, ROUGE
from attar.tasks.kind import Kind

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
