"""A disabled dimension is constant wherever a block hands the stream on, and nowhere afterwards."""

from __future__ import annotations

import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.models.capture import capture
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.residual import disabled

FAMILIES = ("bert", "bart", "t5", "gpt2", "llama")
CHOSEN = (3, 7)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_is_disabled_is_constant_at_every_place_and_what_is_not_is_not(family: str) -> None:
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    stacks = [stack.name for stack in anatomy_of(model).stacks]
    constants = {name: torch.arange(3 * 32.0).reshape(3, 32) / 50 for name in stacks}
    for values in (None, constants):
        with disabled(model, dict.fromkeys(stacks, CHOSEN), values), capture(model) as seen:
            model(**batch)
        for name in stacks:
            assert len(seen.hidden[name]) == 3
            for place, states in enumerate(seen.hidden[name][1:], start=1):
                off = states[..., CHOSEN]
                wanted = torch.zeros(2) if values is None else values[name][place, list(CHOSEN)]
                assert (off == wanted).all(), (name, place)
                assert states[..., 4].std() > 0


@torch.no_grad()
def test_the_first_block_reads_the_embeddings_without_the_dimension() -> None:
    model = tiny.tiny_model("gpt2")
    batch = tiny.tiny_batch(batch=1, tokens=1)  # of one token, which needs no causal mask
    with disabled(model, {"decoder": CHOSEN}), capture(model, scores=False) as seen:
        model(**batch)
    expected = (model.transformer.wte(batch["input_ids"]) + model.transformer.wpe.weight[:1])[0]
    expected[:, list(CHOSEN)] = 0.0
    block = model.transformer.h[0](expected[None])
    block = (block[0] if isinstance(block, tuple) else block)[0]
    block[:, list(CHOSEN)] = 0.0
    torch.testing.assert_close(seen.hidden["decoder"][1][0], block)


@torch.no_grad()
def test_embeddings_that_are_handed_in_stay_as_they_are() -> None:
    """T5 hands them to its first block unchanged."""
    model, batch = tiny.tiny_model("t5", bare=True), tiny.tiny_batch()
    given = model.get_input_embeddings()(batch["input_ids"])
    before = given.clone()
    with disabled(model, {"encoder": CHOSEN}):
        model(
            inputs_embeds=given,
            attention_mask=batch["attention_mask"],
            decoder_input_ids=batch["input_ids"],
        )
    assert torch.equal(given, before)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_nothing_disabled_is_bit_identical_and_so_is_the_model_afterwards(family: str) -> None:
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    stacks = [stack.name for stack in anatomy_of(model).stacks]
    plain = model(**batch).logits
    with disabled(model, dict.fromkeys(stacks, ())):
        assert torch.equal(model(**batch).logits, plain)
    for name in stacks:
        with disabled(model, {name: CHOSEN}):
            assert not torch.equal(model(**batch).logits, plain), name
    with pytest.raises(RuntimeError), disabled(model, dict.fromkeys(stacks, CHOSEN)):
        raise RuntimeError("in between")
    assert torch.equal(model(**batch).logits, plain)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@torch.no_grad()
def test_stacks_are_told_apart() -> None:
    model, batch = tiny.tiny_model("t5"), tiny.tiny_batch()
    with disabled(model, {"decoder": CHOSEN}), capture(model, scores=False) as seen:
        model(**batch)
    assert (seen.hidden["decoder"][1][..., CHOSEN] == 0).all()
    assert (seen.hidden["encoder"][1][..., CHOSEN] != 0).all()


def test_a_dimension_or_a_stack_that_is_not_there_is_refused() -> None:
    model = tiny.tiny_model("bert")
    with pytest.raises(ModelError, match=r"\[32\] cannot be disabled.*0 to 31"):
        disabled(model, {"encoder": (1, 32)}).__enter__()
    with pytest.raises(ModelError, match="no 'decoder'"):
        disabled(model, {"decoder": (1,)}).__enter__()
