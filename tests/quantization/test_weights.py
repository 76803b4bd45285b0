"""Weights to integers: every parameter once, on its own grid, shared memory shared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.models.simulated.packing import read_tensors, write_tensors
from attar.models.simulated.qparams import Bits, ModelQParams
from attar.progress import Progress
from attar.quantization.config import QuantizeStep
from attar.quantization.methods import METHODS
from attar.quantization.weights.clipped import clipped
from attar.quantization.weights.nearest import (
    nearest,
    put_on_grid_,
    quantize_weights,
    weight_grid,
)
from attar.quantization.weights.rules import WEIGHT_RULES
from attar.step import StepContext

BITS = Bits(weight=4, embedding=6, activation=8)


def test_every_tensor_of_the_model_is_in_exactly_one_place():
    model = tiny.tiny_model("roberta")
    found = quantize_weights(model, BITS)
    places = [*found.integers, *found.floats, *found.tied]
    assert sorted(places) == sorted(model.state_dict())
    assert all(not found.floats[name].shape[1:] for name in found.floats), "only vectors stay float"


def test_tables_have_the_bits_of_embeddings_and_maps_those_of_weights():
    for entry in quantize_weights(tiny.tiny_model("bert"), BITS).entries:
        assert entry.bits == (6 if "_embeddings." in entry.fqn else 4), entry.fqn
        assert entry.quant_max == 2 ** (entry.bits - 1) - 1


def test_a_model_takes_over_the_floats_that_a_rule_changed():
    """What is learned by gradient changes biases too."""
    model = tiny.tiny_model("bert")
    found = quantize_weights(model, BITS)
    name = "bert.encoder.layer.0.output.dense.bias"
    moved = {**found.floats, name: found.floats[name] + 1}
    put_on_grid_(model, replace(found, floats=moved))
    assert torch.equal(model.get_parameter(name), moved[name])


@pytest.mark.parametrize("rule", ["nearest", "clipped"])
def test_a_rule_without_data_rounds_as_it_is_called(rule):
    model = tiny.tiny_model("bert")
    context = StepContext("s", Path(), Path(), {}, {}, Path(), Progress(quiet=True))
    found = WEIGHT_RULES[rule](model, [], context).quantize(model, BITS)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    weight = model.get_parameter(name).detach()
    integers, scale = (clipped if rule == "clipped" else nearest)(
        name, weight, weight_grid(name, weight, 4)
    )
    assert torch.equal(found.integers[name], integers)
    assert torch.equal(found.scales[name], scale)
    assert bool((scale < weight.abs().amax(1) / 7 * 0.99).any()) == (rule == "clipped")


def test_weights_move_by_at_most_half_their_rows_scale():
    model = tiny.tiny_model("bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = quantize_weights(model, BITS)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    put_on_grid_(model, found)
    for name, tensor in model.state_dict().items():
        if name in found.scales:
            moved = (tensor - before[name]).abs().amax(1)
            assert bool((moved <= 0.5001 * found.scales[name]).all()), name
            assert bool((moved > 0).any()), name
        else:
            assert torch.equal(tensor, before[name]), name


def test_the_largest_weight_of_each_row_keeps_its_value():
    model = tiny.tiny_model("bert")
    before = model.bert.pooler.dense.weight.detach().clone()
    put_on_grid_(model, quantize_weights(model, BITS))
    after = model.bert.pooler.dense.weight.detach()
    largest = before.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(after.gather(1, largest), before.gather(1, largest))


def test_weights_that_share_memory_are_quantized_once_and_come_back_shared(tmp_path):
    model = tiny.tiny_model("bert")
    shared = model.bert.encoder.layer[0].attention.output.dense
    model.bert.pooler.dense.weight = shared.weight
    found = quantize_weights(model, BITS)
    first = "bert.encoder.layer.0.attention.output.dense.weight"
    assert found.tied == {"bert.pooler.dense.weight": first}
    assert "bert.pooler.dense.weight" not in found.integers
    qparams = ModelQParams(
        family="bert",
        method="minmax",
        bits=BITS,
        sites=(),
        weights=found.entries,
        tied=dict(found.tied),
    )
    write_tensors(tmp_path, qparams, found.integers, found.scales, found.floats)
    put_on_grid_(model, found)
    read = read_tensors(tmp_path, qparams)
    assert set(read) == set(model.state_dict())
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())


def test_a_row_of_zeros_stays_zero():
    model = tiny.tiny_model("bert")
    with torch.no_grad():
        model.classifier.weight[1] = 0
    found = quantize_weights(model, BITS)
    assert math.isfinite(float(found.scales["classifier.weight"][1]))
    put_on_grid_(model, found)
    assert not bool(model.classifier.weight[1].any())


def test_a_weight_that_is_not_finite_is_refused():
    model = tiny.tiny_model("bert")
    with torch.no_grad():
        model.classifier.weight[0, 0] = math.inf
    with pytest.raises(ModelError, match=r"classifier\.weight"):
        quantize_weights(model, BITS)


def test_every_method_has_its_config_its_function_and_its_card(repository):
    union = get_args(get_args(QuantizeStep)[0])
    kinds = {member.model_fields["method"].default for member in union}
    assert kinds == set(METHODS)
    for kind in kinds:
        card = repository / "docs" / "methods" / f"{kind}.md"
        assert f'method = "{kind}"' in card.read_text(), card
