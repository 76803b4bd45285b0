"""The next token of running text, from those before it."""

from __future__ import annotations

from attar.numerics.metric_names import LANGUAGE
from attar.tasks.kind import Kind

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
