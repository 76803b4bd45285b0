"""A folded model is the same function, in every family that has a feed-forward view."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.models.cost import num_params
from attar.models.ffn_variants import VARIANTS, FfnSettings
from attar.models.simpler_ffn import with_variant
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.chains import variant_of
from attar.reparameterization.config import LARGEST_BLOCK_ERROR, LARGEST_DIFFERENCE
from attar.reparameterization.fold import folded

FAMILIES = (*tiny.FAMILIES, *tiny.LINEARS_ONLY)
FOLDING = [name for name, variant in VARIANTS.items() if variant.folds_into is not None]


def built(family: str, variant: str) -> Any:
    return tiny.tiny_model(family, attar_ffn={"variant": variant, "expansion": 2})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny.tiny_batch()).logits


def difference(before: Any, after: Any) -> float:
    a, b = logits(before), logits(after)
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_leaves_the_function_as_it_was(family: str) -> None:
    for name in FOLDING:
        model = built(family, name)
        result = folded(model)
        assert difference(model, result.model) < LARGEST_DIFFERENCE, name
        assert len(result.block_errors) == len(anatomy_of(model).blocks)
        assert max(result.block_errors.values()) < LARGEST_BLOCK_ERROR
        settings = variant_of(result.model.config)
        assert settings is not None and settings.variant == VARIANTS[name].folds_into  # pyright: ignore[reportArgumentType]
        expected = tiny.tiny_model(family, attar_ffn={"variant": settings.variant})
        assert num_params(result.model) == num_params(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_scales_of_norms_fold_into_the_matrix_behind_them(family: str) -> None:
    """In pre-norm blocks only: elsewhere the shortcut reads the norm too."""
    model = built(family, "3w")
    result = folded(model, fold_norms=True)
    assert difference(model, result.model) < LARGEST_DIFFERENCE
    assert max(result.block_errors.values()) < LARGEST_BLOCK_ERROR
    anatomy = anatomy_of(result.model)
    pre_norm = [b for s in anatomy.stacks if s.row.is_pre_norm for b in s.blocks]
    assert len(result.norms) == len(pre_norm)
    for block in pre_norm:
        norm = block.norms[-1]
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))


def test_folding_twice_changes_nothing() -> None:
    for family in ("bert", "gpt2", "llama", "t5"):
        for fold_norms in (False, True):
            once = folded(built(family, "2w"), fold_norms=fold_norms).model
            twice = folded(once, fold_norms=fold_norms)
            assert not twice.block_errors
            state, again = once.state_dict(), twice.model.state_dict()
            assert state.keys() == again.keys()
            assert all(torch.equal(state[name], again[name]) for name in state)


def test_a_model_without_a_chain_is_not_folded() -> None:
    with pytest.raises(ModelError, match="nothing to fold"):
        folded(tiny.tiny_model("bert"))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in FOLDING])
def test_what_is_no_chain_is_left_as_it_is(name: str) -> None:
    """Nothing, one matrix, a ReLU, a matrix behind its own shortcut, and a decoder's own
    feed-forward behind an encoder that has none."""
    model = built("t5", name)
    result = folded(model)
    assert not result.block_errors and not result.norms
    assert result.after == result.before
    state, kept = model.state_dict(), result.model.state_dict()
    assert state.keys() == kept.keys()
    assert all(torch.equal(state[key], kept[key]) for key in state)


@pytest.mark.parametrize(("family", "ties"), [("t5", True), ("llama", True), ("llama", False)])
def test_a_head_stays_tied_to_the_embeddings_or_apart(family: str, ties: bool) -> None:
    stock = tiny.tiny_language_model(family, tie_word_embeddings=ties)
    model: Any = with_variant(stock, FfnSettings(variant="3w", expansion=2))
    result: Any = folded(model, fold_norms=True).model
    head, table = result.get_output_embeddings().weight, result.get_input_embeddings().weight
    assert (head is table) is ties
    assert torch.equal(head, model.get_output_embeddings().weight)
    ids = tiny.tiny_batch()["input_ids"]
    with torch.no_grad():
        fed = {"decoder_input_ids": ids} if family == "t5" else {}
        before, after = (m(input_ids=ids, **fed).logits for m in (model, result))
    assert float((before - after).abs().max() / before.abs().max()) < LARGEST_DIFFERENCE


def test_half_precision_would_miss_the_certificate() -> None:
    """The limit tells float32's rounding from less: a folded model rounded to bfloat16 fails."""
    model = built("bert", "3w")
    result = folded(model).model
    with torch.no_grad():
        for block in anatomy_of(result).blocks:
            weight = block.ffn.maps[0].weight
            weight.copy_(weight.bfloat16().float())
    assert difference(model, result) > LARGEST_DIFFERENCE
