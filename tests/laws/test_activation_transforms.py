"""Whatever is moved behind an activation function, the model computes what it computed."""

from __future__ import annotations

import pytest
import torch

import tiny
import transforms
from attar.errors import ModelError
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.channel_factors import (
    ChannelFactor,
    activation_sites,
    factored_activations,
    insert_factors_,
)
from attar.quantization.transforms.equivalent import (
    EquivalentTransform,
    apply_,
    reasons_to_leave,
)
from attar.quantization.transforms.rules import TRANSFORMS


def sites_of(model):
    return list(activation_sites(anatomy_of(model)))


def random_transforms(model, seed: int = 0) -> dict[str, EquivalentTransform]:
    """Scales from e⁻² to e², some negative."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for site in sites_of(model):
        draws = torch.randn(2, site.reader.in_features, generator=generator, dtype=torch.float64)
        scale = draws[0].clamp(-2, 2).exp() * draws[1].sign()
        made[site.name] = EquivalentTransform.of_scale(scale)
    return made


def fold_(model, chosen) -> None:
    for site in sites_of(model):
        apply_(model, site, chosen[site.name])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_random_factors_behind_every_activation_change_no_output(family):
    model = tiny.tiny_model(family).double()
    before = transforms.outputs(model)
    chosen = random_transforms(model)
    assert len(chosen) == len(anatomy_of(model).blocks)
    fold_(model, chosen)
    assert transforms.change(before, transforms.outputs(model)) <= transforms.EXACT
    assert bool(factored_activations(model)) == (family not in tiny.GATED)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_readers_really_get_the_transformed_tensor(family):
    """X' = y / s is what `down` is given: nothing moved to nowhere."""
    model = tiny.tiny_model(family).double()
    chosen, seen = random_transforms(model), {}
    for site in sites_of(model):
        site.reader.module.register_forward_pre_hook(
            lambda _, args, name=site.name: seen.setdefault(name, []).append(args[0])
        )
    with torch.no_grad():
        model(**tiny.tiny_batch())
        fold_(model, chosen)
        model(**tiny.tiny_batch())
    assert set(seen) == set(chosen)
    for name, (before, after) in seen.items():
        torch.testing.assert_close(chosen[name].forward(before), after, rtol=1e-9, atol=1e-9)


def test_a_second_transform_composes_with_the_first():
    for family in ("bert", "bart"):
        model = tiny.tiny_model(family).double()
        before = transforms.outputs(model)
        fold_(model, random_transforms(model, seed=1))
        fold_(model, random_transforms(model, seed=2))
        assert transforms.change(before, transforms.outputs(model)) <= transforms.EXACT


def test_a_shift_behind_an_activation_is_refused():
    model = tiny.tiny_model("bert")
    site = sites_of(model)[0]
    size = site.reader.in_features
    with pytest.raises(ModelError, match="shift cannot be moved"):
        apply_(model, site, EquivalentTransform(torch.ones(size), torch.ones(size)))
    with pytest.raises(ValueError, match="channels"):
        apply_(model, site, EquivalentTransform.of_scale(torch.ones(size + 1)))


def test_a_map_that_two_blocks_share_is_left_alone():
    model = tiny.tiny_model("bert")
    layers = model.bert.encoder.layer
    layers[1].output.dense.weight = layers[0].output.dense.weight
    left = reasons_to_leave(model, sites_of(model))
    assert [name.removeprefix("bert.encoder.layer.") for name in left] == [
        "0.intermediate.intermediate_act_fn",
        "1.intermediate.intermediate_act_fn",
    ]
    assert all("is shared" in reason for reason in left.values())


def test_an_activation_module_that_two_blocks_share_is_left_alone():
    model = tiny.tiny_model("bert")
    layers = model.bert.encoder.layer
    layers[1].intermediate.intermediate_act_fn = layers[0].intermediate.intermediate_act_fn
    left = reasons_to_leave(model, sites_of(model))
    assert [name.rpartition(".")[2] for name in left] == ["intermediate_act_fn"] * 2
    assert all("activation function is shared" in why for why in left.values())


def test_factors_are_named_and_can_be_inserted_again_before_loading():
    model = tiny.tiny_model("bart")
    assert factored_activations(model) == ()
    fold_(model, random_transforms(model))
    named = factored_activations(model)
    assert len(named) == len(anatomy_of(model).blocks)
    empty = tiny.tiny_model("bart")
    insert_factors_(empty, named)
    assert factored_activations(empty) == named
    ones = [module.factor for module in empty.modules() if isinstance(module, ChannelFactor)]
    assert len(ones) == len(named)
    assert all(bool((factor == 1).all()) for factor in ones)
    empty.load_state_dict(model.state_dict())
    assert transforms.change(transforms.outputs(model), transforms.outputs(empty)) == 0
    with pytest.raises(ModelError, match="none of BartFor"):
        insert_factors_(empty, ["model.encoder.layers.9.activation_fn"])


def test_auto_narrows_a_channel_that_one_token_in_twelve_stretches(tmp_path):
    """Only `auto` looks there, and what it finds helps the reader under both ranges."""
    model = tiny.tiny_model("bert")
    up = model.bert.encoder.layer[0].intermediate.dense
    with torch.no_grad():
        up.bias[7] += 40
    batches = [tiny.tiny_batch(), tiny.tiny_batch(seed=1)]
    config = transforms.settings(weight_bits=8, activation_bits=6)
    before = transforms.outputs(model)
    details = TRANSFORMS["auto"](model, batches, config, transforms.context(tmp_path))
    found = {row["activation"]: row for row in details["activations"]}
    assert len(found) == len(model.bert.encoder.layer)
    row = found["bert.encoder.layer.0.intermediate.intermediate_act_fn"]
    assert row["rule"] != "none"
    assert row["sqnr_after_db"] > row["sqnr_before_db"] + 6
    assert row["clipped_sqnr_after_db"] >= row["clipped_sqnr_before_db"]
    assert transforms.change(before, transforms.outputs(model)) < 1e-4
    assert details["certificate"]["largest_change"] <= transforms.EXACT
    published = TRANSFORMS["os_plus"](
        tiny.tiny_model("bert"), batches, config, transforms.context(tmp_path)
    )
    assert published["activations"] == []
