"""Which heads and dimensions stay, for importances written down here."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import tiny
from attar.models.config import ChangedModel
from attar.models.narrowing.choice import Kept, choose
from attar.models.narrowing.importance import importance_of
from attar.models.narrowing.parts import parts_of
from attar.models.narrowing.sizes import wanted_sizes

DECODER = "transformer.decoder.block"
SHARES = ([0.5, 0.3, 0.1, 0.1], [0.1, 0.25, 0.35, 0.3])
"""Of four heads in two blocks. Summed, heads 0 and 1 have most."""
CROSS = [0.1, 0.4, 0.1, 0.4]


def chosen(*, loudness: float) -> Kept:
    """Two of the four heads of a T5 whose second block is louder than the first."""
    parts = parts_of(tiny.tiny_model("t5"))
    sizes = wanted_sizes(
        parts, ChangedModel.model_validate({"from": "big", "num_attention_heads": 2})
    )
    importance = importance_of(parts, None)
    heads = {
        a.fqn: torch.tensor(CROSS if a.is_cross else SHARES[block.index], dtype=torch.float64)
        * loudness**block.index
        for block in parts.anatomy.blocks
        for a in block.attentions
    }
    return choose(parts, sizes, replace(importance, heads=heads))


def heads_of(kept: Kept, name: str) -> list[int]:
    """The heads of which a map of T5 keeps rows: six of each."""
    ((_, cut),) = kept.maps[name]
    assert cut.rows is not None
    rows: Tensor = cut.rows.reshape(-1, 6)
    assert torch.equal(rows, rows[:, :1] + torch.arange(6))
    return (rows[:, 0] // 6).tolist()


def test_blocks_that_share_positions_have_an_equal_say_however_loud_they_are() -> None:
    kept = chosen(loudness=1000.0)
    assert {tuple(heads.tolist()) for heads in kept.bias_heads.values()} == {(0, 1)}
    for stack in ("encoder", "decoder"):
        for block in (0, 1):
            name = f"transformer.{stack}.block.{block}.layer.0.SelfAttention.q"
            assert heads_of(kept, name) == [0, 1]


def test_cross_attention_reads_no_shared_positions_and_keeps_its_own_heads() -> None:
    kept = chosen(loudness=1.0)
    for block in (0, 1):
        for part in ("q", "k", "v"):
            assert heads_of(kept, f"{DECODER}.{block}.layer.1.EncDecAttention.{part}") == [1, 3]


def test_a_pooler_that_nothing_reads_keeps_its_own_dimensions() -> None:
    """They are no hidden dimensions: those are chosen by the norms."""
    parts = parts_of(tiny.tiny_model("bert", bare=True))
    (space,) = parts.spaces
    assert space.readers == ()
    sizes = wanted_sizes(parts, ChangedModel.model_validate({"from": "big", "hidden_size": 8}))
    rising = torch.arange(32, dtype=torch.float64)
    importance = replace(
        importance_of(parts, None), hidden=rising, spaces={space.writer.fqn: 31 - rising}
    )
    kept = choose(parts, sizes, importance)
    ((_, cut),) = kept.maps[space.writer.fqn]
    assert cut.rows is not None
    assert cut.columns is not None
    assert (cut.rows.tolist(), cut.columns.tolist()) == ([*range(8)], [*range(24, 32)])
