"""How good the model is on texts it does not learn from, in float32: the precision it is shipped
in.

Rows are read in order of length, which wastes no computation on padding and leaves no trace in the
result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from attar.losses.cross_entropy import cross_entropy, squared_error
from attar.numerics.metrics import METRICS
from attar.training.examples import Examples
from attar.training.forward import forward
from attar.training.update.guard import require_finite_predictions

DEFAULT_METRIC = {"classification": "accuracy", "regression": "pearson"}


def metrics_for(objective: str, asked: Sequence[str]) -> tuple[str, ...]:
    """The metrics to look at; the first selects. Without a wish: accuracy for classes, pearson for
    a score.
    """
    return tuple(asked) or (DEFAULT_METRIC[objective],)


@torch.no_grad()
def validate(
    model: PreTrainedModel,
    examples: Examples,
    metrics: Sequence[str],
    batch_size: int,
    after_batch: Callable[[], None],
) -> dict[str, float]:
    """Metrics by name, and "loss": the mean against the gold labels. The model's train mode is left
    as it was.

    Args:
        after_batch: called after each batch; may raise to stop.
    Raises:
        NonFiniteError: a prediction is no number.
    """
    was_training = model.training
    model.eval()
    order = np.argsort(examples.encoded.lengths, kind="stable")
    logits_NC = np.zeros((len(examples), int(model.config.num_labels or 1)), np.float32)
    loss = 0.0
    try:
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            inputs, targets = examples.batch(rows, model.device)
            outputs = forward(model, inputs, needs_hidden_states=False)
            against_gold = squared_error if targets.labels.is_floating_point() else cross_entropy
            per_row = against_gold(outputs.logits, targets.labels)
            loss += float(per_row.cpu().double().sum())  # Apple's GPU has no float64
            logits_NC[rows] = outputs.logits.cpu().numpy()
            after_batch()
    finally:
        model.train(was_training)
    require_finite_predictions(logits_NC)
    is_score = examples.labels.dtype.kind == "f"
    predictions = logits_NC[:, 0] if is_score else logits_NC.argmax(axis=1)
    values = {name: float(METRICS[name](predictions, examples.labels)) for name in metrics}
    return {**values, "loss": loss / max(len(order), 1)}
