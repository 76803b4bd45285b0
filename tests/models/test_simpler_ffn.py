"""A simpler feed-forward made of a trained one: what it copies, and where its maps start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import tiny
from attar.errors import ModelError
from attar.models.config import ChangedModel, FromConfig
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.views import FfnView
from attar.models.surgery import changed


def reference(**settings: Any) -> ChangedModel:
    return ChangedModel.model_validate({"from": "teacher", **settings})


def batches(count: int = 6) -> list[dict[str, torch.Tensor]]:
    return [tiny.tiny_batch(batch=6, seed=seed) for seed in range(count)]


def without_activation_(model: Any) -> Any:
    """The same model with feed-forwards that are linear maps."""
    for block in anatomy_of(model).blocks:
        assert isinstance(block.ffn, FfnView) and block.ffn.gate is None
        model.set_submodule(block.ffn.act_fqn, nn.Identity())
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny.tiny_batch(seed=50)).logits


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_least_squares_recovers_feed_forwards_that_are_linear(family: str) -> None:
    model = without_activation_(tiny.tiny_model(family))
    seen = batches()
    for settings in ({"ffn": "1w"}, {"ffn": "3w", "ffn_expansion": 1.2}):
        simpler = changed(model, reference(**settings), seen)
        torch.testing.assert_close(logits(simpler), logits(model), rtol=1e-3, atol=1e-3)


def test_a_chain_starts_nearer_by_least_squares_than_at_random() -> None:
    model = tiny.tiny_model("llama")

    def distance(start: str) -> float:
        simpler = changed(model, reference(ffn="2w", ffn_start=start), batches())
        return float((logits(simpler) - logits(model)).square().mean())

    assert distance("least_squares") < 0.5 * distance("random")


def test_everything_but_the_feed_forward_is_copied() -> None:
    for family in ("mpnet", "t5", "gpt2"):
        model = tiny.tiny_model(family)
        for name in ("skip", "merged"):
            simpler = changed(model, reference(ffn=name))
            for old, new in zip(anatomy_of(model).blocks, anatomy_of(simpler).blocks, strict=True):
                for a, b in zip(old.attentions, new.attentions, strict=True):
                    for view, copied in zip(
                        (a.q, a.k, a.v, a.out), (b.q, b.k, b.v, b.out), strict=True
                    ):
                        assert torch.equal(view.weight, copied.weight), view.fqn
        assert isinstance(anatomy_of(model).blocks[0].ffn, FfnView), "the model itself stays"


def test_a_model_with_pluggable_attention_of_attars_keeps_it() -> None:
    """transformers builds MPNet with eager attention only; attar lets a fused kernel compute it."""
    model = tiny.tiny_model("mpnet", attention="sdpa")
    for settings in ({"ffn": "skip"}, {"hidden_size": 16}):
        smaller = changed(model, reference(**settings))
        assert smaller.config._attn_implementation == "sdpa"
        assert torch.isfinite(logits(smaller)).all()


def test_a_seed_fixes_the_new_maps() -> None:
    model = tiny.tiny_model("bert")
    one, again, other = (changed(model, reference(ffn="1w_relu"), seed=s) for s in (0, 0, 1))
    assert torch.equal(logits(one), logits(again))
    assert not torch.equal(logits(one), logits(other))


def test_a_replaced_feed_forward_is_neither_replaced_nor_narrowed_again() -> None:
    model = tiny.tiny_model("bert", attar_ffn={"variant": "1w"})
    with pytest.raises(ModelError, match="has the feed-forward '1w' already"):
        changed(model, reference(ffn="2w"), batches())
    with pytest.raises(ModelError, match="cannot be narrowed"):
        changed(model, reference(hidden_size=16))


def test_blocks_of_a_variant_can_be_left_out() -> None:
    model = tiny.tiny_model("t5", attar_ffn={"variant": "3w"})
    smaller = changed(model, reference(keep_blocks=[1]))
    assert [len(stack.blocks) for stack in anatomy_of(smaller).stacks] == [1, 1]


def test_a_linear_chain_needs_texts_to_start_from() -> None:
    with pytest.raises(ModelError, match='name data, or set ffn_start = "random"'):
        changed(tiny.tiny_model("bert"), reference(ffn="1w"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ffn": "4w"}, "Input should be 'skip'"),
        ({"ffn": "1w", "ffn_expansion": 2}, "inner width of ffn = 2w or 3w"),
        ({"ffn": "merged", "ffn_start": "least_squares"}, 'set ffn_start = "random"'),
        ({"ffn_start": "random", "new_head": True}, "set ffn, or remove ffn_start"),
        ({}, "changes nothing"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        reference(**settings)


def test_a_named_size_takes_a_variant() -> None:
    table = {"size": "nano", "family": "t5", "tokenizer": "c", "ffn": "3w", "ffn_expansion": 1.5}
    plain = FromConfig.model_validate(table).plain(100, 1)
    assert plain["attar_ffn"] == {"variant": "3w", "expansion": 1.5}
