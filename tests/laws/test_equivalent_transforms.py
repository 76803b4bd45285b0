"""Whatever is moved across a norm, the model computes what it computed: any family, any rule."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
import torch

import tiny
import transforms
from attar.errors import ModelError
from attar.models.structure.anatomy import anatomy_of
from attar.progress import Progress
from attar.quantization.transforms import certificate
from attar.quantization.transforms.certificate import certify_
from attar.quantization.transforms.equivalent import (
    EquivalentTransform,
    apply_,
    reasons_to_leave,
)
from attar.quantization.transforms.rules import TRANSFORMS

RULES = ("gamma", "smoothquant", "os_plus", "auto")
BATCHES = [tiny.tiny_batch(), tiny.tiny_batch(seed=1)]


def fold_(model, chosen) -> None:
    for site in anatomy_of(model).norm_sites:
        if site.norm.fqn in chosen:
            apply_(model, site, chosen[site.norm.fqn])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_random_transforms_at_every_norm_change_no_output(family):
    model = tiny.tiny_model(family).double()
    before = transforms.outputs(model)
    chosen = transforms.random_transforms(model)
    sites = [site for site in anatomy_of(model).norm_sites if site.is_closed]
    assert len(chosen) == len(sites) > 3
    assert any(bool(t.shift.any()) for t in chosen.values()) == (family not in tiny.WITHOUT_SHIFT)
    norms = [site.norm for site in sites]
    gammas = [norm.weight.detach().clone() for norm in norms]
    fold_(model, chosen)
    assert all(not torch.allclose(g, n.weight) for g, n in zip(gammas, norms, strict=True))
    assert transforms.change(before, transforms.outputs(model)) <= transforms.EXACT


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_norm_gives_the_transformed_tensor(family):
    """X' = (y − z) / s really is what the norm's readers get: nothing was moved to nowhere."""
    model = tiny.tiny_model(family).double()
    chosen, seen = transforms.random_transforms(model), {}
    sites = [site for site in anatomy_of(model).norm_sites if site.is_closed]
    for site in sites:
        site.norm.module.register_forward_hook(
            lambda _, args, output, name=site.norm.fqn: seen.setdefault(name, []).append(output)
        )
    with torch.no_grad():
        model(**tiny.tiny_batch())
        fold_(model, chosen)
        model(**tiny.tiny_batch())
    for name, (before, after) in seen.items():
        torch.testing.assert_close(chosen[name].forward(before), after, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(chosen[name].inverse(after), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_rule_certifies_every_family_with_odd_gammas(family, rule, tmp_path):
    model = transforms.with_odd_gammas(tiny.tiny_model(family, blocks=1))
    before = transforms.outputs(model)
    config = transforms.settings(weight_bits=6, activation_bits=6)
    details = TRANSFORMS[rule](model, BATCHES, config, transforms.context(tmp_path))
    assert details["certificate"]["largest_change"] <= transforms.EXACT
    assert len(details["norms"]) == len(anatomy_of(model).norm_sites)
    left = [site for site in anatomy_of(model).norm_sites if not site.is_closed]
    assert sum("left" in norm for norm in details["norms"]) == len(left)
    # folded into float32 parameters: a few roundings of 6e-8
    assert transforms.change(before, transforms.outputs(model)) < 1e-4
    assert details["certificate"]["float32_change"] < 1e-4


def test_a_second_transform_composes_with_the_first():
    for family in ("bert", "bart", "llama"):
        model = tiny.tiny_model(family).double()
        before = transforms.outputs(model)
        fold_(model, transforms.random_transforms(model, seed=1))
        fold_(model, transforms.random_transforms(model, seed=2))
        assert transforms.change(before, transforms.outputs(model)) <= transforms.EXACT


def test_epsilon_stays_where_it_was_on_inputs_of_tiny_variance():
    """At a variance of 1e-12 half of what BERT's norm divides by is its epsilon."""
    model = tiny.tiny_model("bert").double()
    norm = anatomy_of(model).norm_sites[0].norm
    epsilon = norm.epsilon
    with torch.no_grad():
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            getattr(model.bert.embeddings, name).weight.mul_(epsilon**0.5)
    before = transforms.outputs(model)
    fold_(model, transforms.random_transforms(model))
    after = transforms.outputs(model)
    assert norm.epsilon == epsilon == 1e-12
    assert transforms.change(before, after) <= transforms.EXACT
    norm.module.eps = 0.0
    assert transforms.change(before, transforms.outputs(model)) > 1e-3


def test_a_norm_before_a_tied_head_is_left_alone_with_its_reason(tmp_path):
    from transformers import BartForConditionalGeneration, GPT2LMHeadModel

    for built, family in ((GPT2LMHeadModel, "gpt2"), (BartForConditionalGeneration, "bart")):
        model = built(tiny.tiny_config(family)).eval()
        model.set_attn_implementation("eager")
        last = anatomy_of(model).norm_sites[-1]
        before = transforms.outputs(model)
        embeddings = model.get_input_embeddings().weight.detach().clone()
        details = TRANSFORMS["gamma"](
            model, BATCHES, transforms.settings(), transforms.context(tmp_path)
        )
        (left,) = [norm for norm in details["norms"] if "left" in norm]
        assert left["norm"] == last.norm.fqn
        assert "lm_head.weight" in left["left"]
        assert torch.equal(model.get_input_embeddings().weight, embeddings)
        assert transforms.change(before, transforms.outputs(model)) < 1e-4


def test_a_weight_that_two_maps_share_is_never_scaled_twice():
    model = tiny.tiny_model("bert").double()
    blocks = model.bert.encoder.layer
    blocks[0].attention.self.key.weight = blocks[0].attention.self.query.weight  # one norm's
    blocks[1].intermediate.dense.weight = blocks[0].intermediate.dense.weight  # two norms'
    before = transforms.outputs(model)
    anatomy = anatomy_of(model)
    left = reasons_to_leave(model, anatomy.norm_sites)
    assert [name.removeprefix("bert.") for name in left] == [
        "embeddings.LayerNorm",
        "encoder.layer.0.attention.output.LayerNorm",
        "encoder.layer.1.attention.output.LayerNorm",
    ]
    chosen = transforms.random_transforms(model)
    for site in anatomy.norm_sites:
        if site.norm.fqn in left:
            with pytest.raises(ModelError, match="is shared"):
                apply_(model, site, chosen[site.norm.fqn])
        else:
            apply_(model, site, chosen[site.norm.fqn])
    assert transforms.change(before, transforms.outputs(model)) <= transforms.EXACT


def test_the_last_norm_of_a_bare_model_is_left_alone():
    model = tiny.tiny_model("gpt2", bare=True)
    last = anatomy_of(model).norm_sites[-1]
    left = reasons_to_leave(model, anatomy_of(model).norm_sites)
    assert list(left) == [last.norm.fqn]
    with pytest.raises(ModelError, match=r"ln_f.*other modules"):
        apply_(model, last, EquivalentTransform.of_scale(torch.full((32,), 2.0)))


def test_a_shift_that_has_nowhere_to_go_is_refused():
    model = tiny.tiny_model("llama")
    site = anatomy_of(model).norm_sites[0]
    transform = EquivalentTransform(torch.ones(32), torch.ones(32))
    with pytest.raises(ModelError, match=r"shift.*no bias"):
        apply_(model, site, transform)


def test_a_transform_is_finite_and_never_zero():
    for scale, shift in ((0.0, 0.0), (torch.nan, 0.0), (1.0, torch.inf)):
        with pytest.raises(ValueError, match="1 of them unusable"):
            EquivalentTransform(torch.tensor([1.0, scale]), torch.tensor([0.0, shift]))


def test_the_certificate_refuses_what_changes_outputs_and_leaves_the_model(monkeypatch):
    """A shortcut that nobody restored: exactly the mistake the certificate is there for."""
    model = tiny.tiny_model("bert")
    chosen, before = transforms.random_transforms(model), copy.deepcopy(model.state_dict())

    def forgetful(model, site, transform):
        from dataclasses import replace

        apply_(model, replace(site, shortcuts=()), transform)

    monkeypatch.setattr(certificate, "apply_", forgetful)
    with pytest.raises(ModelError, match=r"5 equivalent transforms changed.*1e-09"):
        certify_(model, chosen, BATCHES)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_outputs_that_are_not_numbers_have_no_certificate():
    model = tiny.tiny_model("bert")
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="by nan"):
        certify_(model, transforms.random_transforms(model), BATCHES)


@pytest.mark.parametrize(("family", "is_told"), [("bert", False), ("llama", True)])
def test_os_plus_says_where_no_shift_can_go(family, is_told, tmp_path):
    log = io.StringIO()
    context = replace(transforms.context(tmp_path), progress=Progress(log))
    TRANSFORMS["os_plus"](tiny.tiny_model(family), BATCHES, transforms.settings(), context)
    assert ("os_plus moves no shift at 5 of 5 norms" in log.getvalue()) == is_told
