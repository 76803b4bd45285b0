"""Whole blocks of a model, kept exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny
from attar.errors import ModelError
from attar.models.structure.anatomy import anatomy_of
from attar.models.surgery import keep_blocks

BLOCKS = 4


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny.tiny_model(request.param, blocks=BLOCKS)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny.tiny_batch()).logits


def skipping(model: Any, kept: list[int]) -> torch.Tensor:
    """The slow reference: dropped blocks are made to hand on what they receive."""
    copied = copy.deepcopy(model)
    for block in anatomy_of(copied).blocks:
        if block.index not in kept:
            _make_identity_(block.module)
    return logits(copied)


def _make_identity_(block: torch.nn.Module) -> None:
    original = block.forward

    def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output = original(hidden_states, *args, **kwargs)
        return (hidden_states, *output[1:]) if isinstance(output, tuple) else hidden_states

    block.forward = forward  # type: ignore[method-assign]


def with_first(model: Any, kept: list[int]) -> list[int]:
    """ModernBERT needs its first block, whose attention reads the embeddings' norm."""
    has_own = anatomy_of(model).stacks[0].row.first_norm is None
    return kept if has_own else sorted({0, *kept})


def test_a_first_block_that_is_unlike_the_others_has_to_stay() -> None:
    with pytest.raises(ModelError, match=r"\[1\] leaves block 0 out.*keep it: \[0, 1\]"):
        keep_blocks(tiny.tiny_model("modernbert"), [1])


def test_keeping_all_blocks_changes_nothing(model: Any) -> None:
    assert torch.equal(logits(keep_blocks(model, range(BLOCKS))), logits(model))


@pytest.mark.parametrize("kept", [[0, 2], [1, 3], [3]])
def test_kept_blocks_compute_what_they_did(model: Any, kept: list[int]) -> None:
    kept = with_first(model, kept)
    smaller = keep_blocks(model, kept)
    assert len(anatomy_of(smaller).stacks[0].blocks) == len(kept)
    torch.testing.assert_close(logits(smaller), skipping(model, kept), rtol=1e-6, atol=1e-6)


def test_the_bigger_model_stays_as_it_is(model: Any) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    smaller = keep_blocks(model, with_first(model, [1, 3]))
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.add_(1)
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert model.config.to_dict() == config


def test_a_smaller_model_survives_saving_and_loading(model: Any, tmp_path: Path) -> None:
    smaller = keep_blocks(model, with_first(model, [1, 3]))
    smaller.save_pretrained(tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(loaded.eval()), logits(smaller), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "bart", "t5"])
def test_caches_of_a_smaller_decoder_are_numbered_from_0(name: str) -> None:
    """Reading token by token through the cache gives what reading at once gives."""
    smaller = keep_blocks(tiny.tiny_model(name, blocks=BLOCKS, bare=True), [1, 3])
    batch = tiny.tiny_batch(batch=1)["input_ids"]
    with torch.no_grad():
        if smaller.config.is_encoder_decoder:
            whole = smaller(input_ids=batch, decoder_input_ids=batch).last_hidden_state
            start = smaller(input_ids=batch, decoder_input_ids=batch[:, :4], use_cache=True)
            rest = {"input_ids": batch, "decoder_input_ids": batch[:, 4:]}
        else:
            whole = smaller(input_ids=batch).last_hidden_state
            start = smaller(input_ids=batch[:, :4], use_cache=True)
            rest = {"input_ids": batch[:, 4:]}
        assert start.past_key_values.get_seq_length() == 4
        end = smaller(**rest, past_key_values=start.past_key_values, use_cache=True)
    torch.testing.assert_close(end.last_hidden_state, whole[:, 4:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([1, 4], r"names \[4\].*4 blocks, 0 to 3"),
        ([-1], r"\[-1\]"),
        ([], "increasing"),
        ([2, 1], "increasing"),
    ],
)
def test_blocks_that_do_not_exist_are_named(blocks: list[int], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        keep_blocks(tiny.tiny_model("bert", blocks=BLOCKS), blocks)


def test_an_encoder_decoder_says_which_stack_is_too_short() -> None:
    model = tiny.tiny_model("bart", blocks=3, decoder_layers=2)
    with pytest.raises(ModelError, match="decoder has 2 blocks"):
        keep_blocks(model, [0, 2])


def test_blocks_whose_number_is_part_of_their_function_stay_where_they_are() -> None:
    model = tiny.tiny_model("gpt2", blocks=3, scale_attn_by_inverse_layer_idx=True)
    assert torch.equal(logits(keep_blocks(model, [0, 1, 2])), logits(model))
    with pytest.raises(ModelError, match="scale_attn_by_inverse_layer_idx"):
        keep_blocks(model, [0, 2])


def test_settings_given_block_by_block_go_with_their_blocks() -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    sliding = {"layer_types": kinds, "use_sliding_window": True, "sliding_window": 3}
    model = tiny.tiny_model("qwen2", blocks=BLOCKS, **sliding)
    smaller = keep_blocks(model, [1, 2])
    assert smaller.config.layer_types == ["sliding_attention", "full_attention"]
    torch.testing.assert_close(logits(smaller), skipping(model, [1, 2]), rtol=1e-6, atol=1e-6)
