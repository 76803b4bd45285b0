"""A restored shortcut is a part of the model like any other: copied, trained, cached, traced."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import tiny
import transforms
from attar.errors import ModelError
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.ports import inserted, use_attar_attention_
from attar.models.structure.shortcuts import (
    Restore,
    insert_restore_,
    insert_restores_,
    restored_norms,
)
from attar.models.structure.sites import Site
from attar.quantization.transforms.equivalent import EquivalentTransform, apply_

POST_NORM = ("bert", "roberta", "bart")


def moved(model):
    """A copy with a random transform at every norm."""
    model = copy.deepcopy(model)
    chosen = transforms.random_transforms(model)
    for site in anatomy_of(model).norm_sites:
        apply_(model, site, chosen[site.norm.fqn])
    return model


def restores(model) -> list[Restore]:
    return [module for module in model.modules() if isinstance(module, Restore)]


@pytest.mark.parametrize("family", POST_NORM)
def test_a_restore_without_effect_changes_no_bit(family):
    model = tiny.tiny_model(family)
    with torch.no_grad():
        before = model(**tiny.tiny_batch()).logits
        for site in anatomy_of(model).norm_sites:
            for shortcut in site.shortcuts:
                first = insert_restore_(model, shortcut)
                assert insert_restore_(model, shortcut) is first
        after = model(**tiny.tiny_batch()).logits
    assert len(restores(model)) == sum(len(block.norms) for block in anatomy_of(model).blocks)
    assert torch.equal(before, after)


@pytest.mark.parametrize("family", POST_NORM)
def test_restored_norms_are_named_and_can_be_inserted_again_before_loading(family):
    model = moved(tiny.tiny_model(family))
    named = restored_norms(model)
    assert set(named) == {site.norm.fqn for site in anatomy_of(model).norm_sites if site.shortcuts}
    empty = tiny.tiny_model(family, seed=9)
    assert restored_norms(empty) == ()
    insert_restores_(empty, named)
    empty.load_state_dict(model.state_dict(), strict=True)
    assert transforms.change(transforms.outputs(model), transforms.outputs(empty)) == 0


def test_a_norm_without_a_shortcut_has_nothing_to_restore():
    with pytest.raises(ModelError, match=r"1 of 1 norms.*GPT2.*ln_1"):
        insert_restores_(tiny.tiny_model("gpt2"), ["transformer.h.0.ln_1"])


@pytest.mark.parametrize("family", POST_NORM)
def test_a_copy_has_factors_of_its_own(family):
    model = moved(tiny.tiny_model(family))
    before = transforms.outputs(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for restore in restores(twin):
            restore.scale.zero_()
    assert transforms.change(before, transforms.outputs(model)) == 0
    assert transforms.change(before, transforms.outputs(twin)) > 1e-2


@pytest.mark.parametrize("family", POST_NORM)
def test_gradients_pass_a_restored_shortcut(family):
    """What reaches the embeddings is what reached them before: same function, same slope."""
    model = tiny.tiny_model(family).double()
    slopes = []
    for each in (model, moved(model)):
        each.zero_grad()
        each(**tiny.tiny_batch()).logits.square().sum().backward()
        slopes.append(each.get_input_embeddings().weight.grad)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-9)


def test_dropout_drops_the_same_values_of_the_shortcut():
    """The tensor is remembered behind the dropout that its block adds it with."""
    model = tiny.tiny_model("bart", dropout=0.4).double()
    other = copy.deepcopy(model)
    for site in anatomy_of(other).norm_sites:
        scale = torch.linspace(-2, 2, 32, dtype=torch.float64)  # even count: never 0
        apply_(other, site, EquivalentTransform.of_scale(scale))
    found = []
    for each in (model, other):
        torch.manual_seed(0)
        found.append(each.train()(**tiny.tiny_batch()).logits.detach())
    assert transforms.change(found[0], found[1]) <= transforms.EXACT
    assert transforms.change(transforms.outputs(model), found[0]) > 1e-2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_nothing_of_a_batch_stays_behind(mode):
    model = moved(tiny.tiny_model("bart"))
    with mode():
        model(**tiny.tiny_batch())
        model(**tiny.tiny_batch(batch=2, tokens=5))
    assert all(restore._remembered is None for restore in restores(model))


def test_what_a_failed_pass_left_behind_is_not_copied_and_not_used():
    model = moved(tiny.tiny_model("bart"))
    wanted = transforms.outputs(model)

    def fail(*_):
        raise RuntimeError("out of memory")

    handle = model.model.encoder.layers[0].fc2.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        model(**tiny.tiny_batch(batch=2, tokens=5))
    handle.remove()
    assert any(restore._remembered is not None for restore in restores(model))
    twin = copy.deepcopy(model)  # torch refuses to copy a tensor with a history
    assert all(restore._remembered is None for restore in restores(twin))
    with torch.no_grad():
        model(**tiny.tiny_batch())
    assert transforms.change(wanted, transforms.outputs(model)) == 0


def test_a_norm_that_comes_before_its_reader_is_an_error():
    model = moved(tiny.tiny_model("bart"))
    with pytest.raises(ModelError, match="another order"):
        model.model.encoder.layers[0].final_layer_norm(torch.ones(1, 1, 32))


def test_a_cache_of_keys_and_values_knows_restored_shortcuts():
    from transformers import BartForConditionalGeneration

    torch.manual_seed(0)
    config = tiny.tiny_config("bart", tie_word_embeddings=False)
    model = BartForConditionalGeneration(config).eval().double()
    tokens = []
    for each in (model, moved(model)):
        found = each.generate(
            **tiny.tiny_batch(),
            max_new_tokens=8,
            min_new_tokens=8,
            num_beams=2,
            output_scores=True,
            return_dict_in_generate=True,
        )
        tokens.append(found)
    assert torch.equal(tokens[0].sequences, tokens[1].sequences)
    assert transforms.change(tokens[0].sequences_scores, tokens[1].sequences_scores) <= 1e-9


def test_a_quantizer_at_the_readers_input_leaves_the_shortcut_in_peace():
    """The shortcut adds what the block holds, not what a map's own quantizer makes of it."""
    model = tiny.tiny_model("bart").double()
    place = Site("model.encoder.layers.0.fc1", "input", "ffn_act", 0)
    twice = EquivalentTransform.of_scale(torch.full((32,), 2.0))
    first, second, batch = copy.deepcopy(model), copy.deepcopy(model), tiny.tiny_batch()

    def transform_(each):
        for site in anatomy_of(each).norm_sites:
            apply_(each, site, twice)

    with torch.no_grad():
        with inserted(model, {place: Halved()}):
            wanted = model(**batch).logits
        transform_(first)
        with inserted(first, {place: Halved()}):
            assert transforms.change(wanted, first(**batch).logits) <= transforms.EXACT
        with inserted(second, {place: Halved()}):
            transform_(second)
            assert transforms.change(wanted, second(**batch).logits) <= transforms.EXACT


class Halved(nn.Module):
    """A quantizer so coarse that nobody can miss it."""

    def forward(self, x):
        return x / 2


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_restored_shortcuts_are_traced_and_exported(family):
    model = moved(tiny.tiny_model(family))
    use_attar_attention_(model)
    model.config.return_dict = False
    batch, other = tiny.tiny_batch(), tiny.tiny_batch(seed=5)
    names = ("input_ids", "attention_mask")

    class Positional(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]

    wrapped = Positional().eval()
    arguments = tuple(batch[name] for name in names)
    with torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OpenVINO's converter traces this way too
            traced = torch.jit.trace(wrapped, arguments, check_trace=False)
        exported = torch.export.export(wrapped, arguments).module()
        wanted = model(**other)[0]
        for ours in (traced, exported):
            found = ours(*(other[name] for name in names))
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
