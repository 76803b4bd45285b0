"""Our attention computes what eager computes, and a module at a site leaves no trace behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tiny
from attar.errors import ModelError
from attar.models.structure.ports import attar_attention, insert_, inserted, use_attar_attention_
from attar.models.structure.sites import sites_of

FAMILIES = tiny.FAMILIES


class Stretched(nn.Module):
    """Not a constant added or a factor of all: a softmax and a norm would swallow them."""

    def forward(self, x):
        return x * torch.linspace(1, 3, x.shape[-1])


class AddOne(nn.Module):
    def forward(self, x):
        return x + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_our_attention_is_eagers_bit_for_bit(family):
    eager = tiny.tiny_model(family, attention="eager")
    ours = copy.deepcopy(eager)
    use_attar_attention_(ours)
    batch = tiny.tiny_batch()
    assert not bool(batch["attention_mask"].all()), "the mask must matter"
    with torch.no_grad():
        assert torch.equal(ours(**batch).logits, eager(**batch).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_module_at_any_site_changes_the_logits_and_leaves_no_trace(family):
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    use_attar_attention_(model)
    names = [name for name, _ in model.named_modules()]
    with torch.no_grad():
        before = model(**batch).logits
        for site in sites_of(model):
            with inserted(model, {site: Stretched()}):
                assert not torch.allclose(model(**batch).logits, before, atol=1e-5), site
            assert torch.equal(model(**batch).logits, before), site
    assert [name for name, _ in model.named_modules()] == names


@pytest.mark.parametrize("is_training", [True, False])
def test_dropout_falls_on_probabilities_in_training_alone(is_training):
    module = nn.Module().train(is_training)
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=random)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        context, _ = attar_attention(module, q, k, v, None, scaling=0.3, dropout=0.5)
        torch.manual_seed(5)
        probabilities = (q @ k.transpose(2, 3) * 0.3).softmax(-1)
        kept = nn.functional.dropout(probabilities, 0.5, training=is_training)
    torch.testing.assert_close(context, (kept @ v).transpose(1, 2))


def test_modules_at_sites_travel_with_a_copy():
    model, batch = tiny.tiny_model("bert"), tiny.tiny_batch()
    site = sites_of(model)[0]
    insert_(model, {site: Stretched()})
    twin = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(twin(**batch).logits, model(**batch).logits)
        twin.get_submodule(site.fqn).at_output = AddOne()
        assert not torch.equal(twin(**batch).logits, model(**batch).logits)


def test_a_site_takes_one_module():
    model = tiny.tiny_model("bert")
    site = sites_of(model)[0]
    insert_(model, {site: AddOne()})
    with pytest.raises(ModelError, match="holds a module already"):
        insert_(model, {site: AddOne()})


def test_attention_that_hides_its_probabilities_is_refused():
    model = tiny.tiny_model("bert", attention="sdpa")
    site = next(site for site in sites_of(model) if site.port == "probabilities")
    with pytest.raises(ModelError, match="'sdpa' does not expose its probabilities"):
        insert_(model, {site: AddOne()})
