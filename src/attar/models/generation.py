"""Text from an encoder-decoder: one way to generate, for calibration and for evaluation alike.

The text depends on how each token is chosen, and defaults for that differ from version to version.
So the task (`Generation`) has all of the settings, and only the ids of special tokens are taken
from the model. Always deterministic: beam search or greedy, never sampled.

Shapes: B texts, S tokens written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from attar.errors import ModelError
from attar.tasks.task import Task


def generate(
    model: PreTrainedModel,
    task: Task,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    use_cache: bool = True,
) -> Tensor:
    """What `model` writes to each text: int64 (B, S), from the decoder's start token on, padded.

    Raises:
        ModelError: the task has no settings of generation.
    """
    settings = task.generation
    if settings is None:
        raise ModelError(
            f"a task of {task.objective} does not generate text; use a generative model"
        )
    config = model.config
    chosen = GenerationConfig(
        **settings.model_dump(),
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=start_of(model),
    )
    with torch.inference_mode():
        return model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=input_ids, attention_mask=attention_mask, generation_config=chosen
        )


def tokens_read(written: Tensor, eos: int | Sequence[int]) -> Tensor:
    """Which tokens of generated rows the decoder was fed: int64 (B, S), 1 and 0.

    Everything before the first end token, and without one all but the last token: what ends a text
    is never read again. The start token may be the end token (as in BART), so place 0 is not an
    end.

    Example:
        >>> tokens_read(torch.tensor([[2, 7, 2, 1], [2, 7, 8, 9]]), 2).tolist()
        [[1, 1, 0, 0], [1, 1, 1, 0]]
    """
    ends = [eos] if isinstance(eos, int) else list(eos)
    is_end = torch.isin(written, torch.tensor(ends, device=written.device))
    is_end[:, 0] = False
    is_end[:, -1] = True
    return (is_end.cumsum(dim=1) == 0).to(torch.int64)


def start_of(model: PreTrainedModel, where: str | None = None) -> int:
    """The token that the decoder reads first.

    Args:
        where: the model, for the message.
    Raises:
        ModelError: the config names none.
    """
    config = model.config
    start = getattr(config, "decoder_start_token_id", None)
    start = config.bos_token_id if start is None else start
    if not isinstance(start, int):
        raise ModelError(
            f"the config of {where or type(model).__name__} has no decoder_start_token_id, the "
            "first token that the decoder reads; add it to config.json (T5 models use the id of "
            "their padding token)"
        )
    return start
