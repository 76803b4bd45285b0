"""Calibration texts for a decoder: what the float model itself writes.

The problem: half of an encoder-decoder reads no calibration text at all, it reads its own earlier
words. Gold summaries would show it words it would never write. The idea: let the float model write
first, with the settings it is used with; then every later pass, float or quantized, reads those
words at once (teacher forcing) and visits exactly the activations that writing them visited.

    decoder reads   start, w₁ … wₙ      its mask is 1 there; the end token is written, never read

Of several beams only the chosen text is read again. Left out: gold texts in place of generations.
Source: Outlier Suppression (Wei et al. 2022), section 5.1: batches of 4 for summarisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attar.errors import StoppedError
from attar.models.generation import generate, tokens_read
from attar.models.load import LoadedModel
from attar.quantization.calibration.real_tokens import DECODER_MASK
from attar.step import StepContext

BATCH_SIZE = 4
"""Texts a batch, where the recipe says nothing; the paper's."""


def with_generations(
    loaded: LoadedModel, batches: Sequence[Mapping[str, Tensor]], context: StepContext
) -> list[dict[str, Tensor]]:
    """Each batch with what the model writes to its texts, as its decoder reads it.

    Raises:
        StoppedError: the process was asked to stop.
    """
    assert loaded.task is not None
    read: list[dict[str, Tensor]] = []
    with context.progress.task("texts of the float model", len(batches)) as task:
        for batch in batches:
            if context.should_stop():
                raise StoppedError(
                    f"stopped during step {context.name!r}; calibration keeps no checkpoint and "
                    "starts again on resume"
                )
            inputs, mask = batch["input_ids"], batch["attention_mask"]
            written = generate(loaded.model, loaded.task, inputs, mask)
            read.append({**batch, **decoder_inputs(loaded, written)})
            task.advance()
    return read


def decoder_inputs(loaded: LoadedModel, written: Tensor) -> dict[str, Tensor]:
    """What the decoder reads when it writes `written` (B, S), with its mask; both (B, S − 1)."""
    config = loaded.model.config
    mask = tokens_read(written, config.eos_token_id)[:, :-1]
    ids = torch.where(mask > 0, written[:, :-1], config.pad_token_id)
    return {"decoder_input_ids": ids, DECODER_MASK: mask}
