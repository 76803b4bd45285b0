"""Text generation with an encoder-decoder, in the same way for calibration and evaluation.

The text depends on how each token is chosen, and the defaults differ between versions of
transformers. So all settings are in the task (`Generation`), and only the ids of special tokens
come from the model. Generation is always deterministic: beam search or greedy, never sampling.

Shapes: B texts, S generated tokens.
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
    """Generate a text for each input: int64 (B, S), padded, including the decoder's start token.

    Raises:
        ModelError: the task has no generation settings.
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
    """Mask of the generated tokens that the decoder has read: int64 (B, S), 1 and 0.

    These are the tokens before the first end token or, without one, all but the last token: the
    last token of a text is never read. The start token may equal the end token (as in BART), so
    position 0 does not count as an end.

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
    """The decoder's first input token.

    Args:
        where: name of the model, for messages.

    Raises:
        ModelError: the config does not define it.
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
