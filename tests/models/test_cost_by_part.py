"""The parts of a model add up to the whole, and each is what its formula says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from attar.models.cost import cost_from_config, flops, num_params
from attar.models.cost_by_part import cost_by_part
from attar.models.named_sizes import config_of_size


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_parts_add_up_to_the_model(family: str) -> None:
    for settings in (None, {"variant": "3w"}, {"variant": "merged"}):
        model = tiny.tiny_model(family, attar_ffn=settings)
        parts = cost_by_part(model, 9)
        assert sum(part.num_params for part in parts.values()) == num_params(model)
        assert sum(part.flops for part in parts.values()) == flops(model, 1, 9)
        assert min(part.num_params for part in parts.values()) >= 0
        assert parts["head"].flops > 0


def test_parts_of_a_t5_are_those_of_the_formulas() -> None:
    d, f, inner, heads, blocks, tokens = 32, 48, 24, 4, 2, 5
    parts = cost_by_part(tiny.tiny_language_model("t5", tie_word_embeddings=True), tokens)
    assert parts["embeddings"].num_params == tiny.VOCABULARY * d
    assert parts["encoder.ffn"].num_params == blocks * 2 * d * f
    assert parts["encoder.ffn"].flops == blocks * 2 * tokens * 2 * d * f
    assert parts["encoder.norms"].num_params == (2 * blocks + 1) * d
    assert parts["decoder.norms"].num_params == (3 * blocks + 1) * d
    assert parts["encoder.attention"].num_params == blocks * 4 * d * inner + 32 * heads
    assert parts["decoder.attention"].num_params == blocks * 4 * d * inner + 32 * heads
    assert parts["decoder.cross_attention"].num_params == blocks * 4 * d * inner
    pairs = 4 * tokens * tokens * inner
    assert parts["encoder.attention"].flops == blocks * (2 * tokens * 4 * d * inner + pairs)
    for part in ("decoder.attention", "decoder.cross_attention"):
        assert parts[part].flops == parts["encoder.attention"].flops
    assert parts["head"].num_params == 0, "tied to the embedding"
    assert parts["head"].flops == 2 * tokens * d * tiny.VOCABULARY


def test_cross_attention_maps_what_the_encoder_read() -> None:
    """Keys and values of 7 tokens, queries and outputs of the 3 written ones."""
    d, inner, blocks, read, written = 32, 24, 2, 7, 3
    parts = cost_by_part(tiny.tiny_language_model("t5"), read, written)
    maps = 2 * 2 * d * inner * (read + written)
    assert parts["decoder.cross_attention"].flops == blocks * (maps + 4 * read * written * inner)
    assert parts["decoder.attention"].flops == blocks * (
        2 * written * 4 * d * inner + 4 * written * written * inner
    )


MINI: dict[str, dict[str, Any]] = {
    "baseline": {},
    **{f"`{name}`": {"attar_ffn": {"variant": name}} for name in ("skip", "skip_encoder")},
    "`1w`, `1w_relu`, folded `2w` and `3w`": {"attar_ffn": {"variant": "1w"}},
    **{
        f"`{name}` in training": {"attar_ffn": {"variant": name}} for name in ("2w", "3w", "merged")
    },
    "1.5 × heads": {"num_heads": 12},
    "2 × head size": {"d_kv": 64},
    "both": {"num_heads": 12, "d_kv": 64},
}
"""Row of the method card, for tables 4.1, 4.3 and 4.4 of UCB/EECS-2023-141 → its T5-Mini."""


def test_the_card_of_variants_has_the_exact_counts_of_t5_mini(repository: Path) -> None:
    card = (repository / "docs" / "methods" / "ffn_variants.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines()]
    printed = {row[0]: row[2:] for row in rows if len(row) == 4}
    plain = {**config_of_size("mini-32", "t5"), "vocab_size": 32_128}
    plain["architectures"] = ["T5ForConditionalGeneration"]
    for name, changes in MINI.items():
        model = cost_from_config({**plain, **changes}).model
        parts = cost_by_part(model, 128)
        params = num_params(model) - parts["embeddings"].num_params
        mega = [
            sum(part.flops for key, part in parts.items() if key.startswith(stack)) / 128e6
            for stack in ("encoder", "decoder")
        ]
        assert printed[name] == [f"{params / 1e6:.3f}", f"{mega[0]:.2f}, {mega[1]:.2f}"], name
