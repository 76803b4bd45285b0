"""What a cache step will write, before anything is tokenized: from mean lengths and a config.

    bytes = 4 · predictions · columns + states · tokens · hidden size · (2 or 4)

An encoder-decoder's targets are taken to be as long as its texts, which they seldom exceed; the
step itself counts every token and asks the disk before it begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar.training.cache_config import UNIFORM, CacheStep, States


def cache_bytes(
    step: CacheStep, config: Mapping[str, Any], num_labels: int | None, rows: int, tokens: int
) -> int:
    """Bytes of the answers about `rows` texts of `tokens` tokens.

    Args:
        config: of the teacher, as plain data.
        num_labels: columns of a classifier's head; None: words are predicted, at every token.
    """
    hidden = config.get("hidden_size") or config.get("d_model") or config["n_embd"]
    stacks = 2 if config.get("is_encoder_decoder") else 1
    value = 2 if step.dtype == "bf16" else 4
    per_row = tokens * _num_states(step, stacks) * hidden * value
    if step.logits:
        per_row += 4 * (tokens * config["vocab_size"] if num_labels is None else num_labels)
    return rows * per_row


def _num_states(step: CacheStep, stacks: int) -> int:
    asked = step.hidden_states
    by_stack: list[States] = [*asked.values()] if isinstance(asked, dict) else [asked] * stacks
    return sum(map(_count, by_stack))


def _count(states: States) -> int:
    if isinstance(states, str):
        uniform = UNIFORM.fullmatch(states)
        assert uniform is not None, "the settings were checked"
        return int(uniform[1]) + 1
    return len(states)
