"""What a cache step will write, before anything is tokenized: from mean lengths and a config.

    bytes = 4 · predictions · columns + states · tokens · hidden size · (2 or 4)

An encoder-decoder's targets are taken to be as long as its texts, which they seldom exceed, or as a
class's word; the step itself counts every token and asks the disk before it begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attar.training.cache_config import UNIFORM, CacheStep, States

STACKS = ("encoder", "decoder")


def cache_bytes(
    step: CacheStep,
    config: Mapping[str, Any],
    num_labels: int | None,
    rows: int,
    tokens: int,
    written: int | None = None,
) -> int:
    """Bytes of the answers about `rows` texts of `tokens` tokens.

    Args:
        config: of the teacher, as plain data.
        num_labels: columns of a classifier's head; None: words are predicted, at every token.
        written: tokens of a target, which are then what is predicted; None: as many as read.
    """
    names = ("hidden_size", "d_model", "n_embd", "dim")
    hidden = next(config[name] for name in names if config.get(name))
    value = 2 if step.dtype == "bf16" else 4
    written = tokens if written is None else written
    reads_first = bool(config.get("is_encoder_decoder"))
    lengths = {"encoder": tokens, "decoder": written if reads_first else tokens}
    asked = step.hidden_states
    stacks = STACKS if reads_first else STACKS[:1]
    by_stack = asked if isinstance(asked, dict) else dict.fromkeys(stacks, asked)
    kept = sum(lengths[stack] * _count(states) for stack, states in by_stack.items())
    per_row = kept * hidden * value
    if step.logits:
        per_row += 4 * (written * config["vocab_size"] if num_labels is None else num_labels)
    return rows * per_row


def _count(states: States) -> int:
    if isinstance(states, str):
        uniform = UNIFORM.fullmatch(states)
        assert uniform is not None, "the settings were checked"
        return int(uniform[1]) + 1
    return len(states)
