"""Weights that learn on grids: what is computed is what is stored."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tiny
from attar.errors import ModelError
from attar.models.simulated.qparams import Bits, WeightQParams
from attar.quantization.learning.weights_on_grid import (
    LearnedSteps,
    MinmaxSteps,
    put_weights_on_learned_grids_,
    stored_weights,
)
from attar.quantization.weights.nearest import put_on_grid_, quantize_weights

BITS = Bits(weight=4, embedding=2, activation=8)


@pytest.mark.parametrize("family", ["bert", "roberta", "bart"])
@pytest.mark.parametrize("make", [LearnedSteps, MinmaxSteps])
def test_what_is_computed_is_what_is_stored(family, make):
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    start = quantize_weights(model, BITS)
    student = copy.deepcopy(model)
    grids = put_weights_on_learned_grids_(student, start, make)
    with torch.no_grad():  # somewhere on the way
        for name, parameter in student.named_parameters():
            parameter.mul_(1.07 if name.endswith("step") else 0.95)
    stored = stored_weights(student, grids, start)
    assert (stored.entries, stored.tied) == (start.entries, start.tied)
    put_on_grid_(model, stored)
    with torch.no_grad():
        assert torch.equal(student(**batch).logits, model(**batch).logits)


def test_training_starts_where_the_weights_were_put():
    model, batch = tiny.tiny_model("bert"), tiny.tiny_batch()
    start = quantize_weights(model, BITS)
    student = copy.deepcopy(model)
    put_weights_on_learned_grids_(student, start, LearnedSteps)
    put_on_grid_(model, start)
    with torch.no_grad():
        assert torch.equal(student(**batch).logits, model(**batch).logits)


def test_parameters_keep_their_names_and_gain_steps():
    model = tiny.tiny_model("bert")
    before = {name for name, _ in model.named_parameters()}
    put_weights_on_learned_grids_(model, quantize_weights(model, BITS), LearnedSteps)
    after = {name for name, _ in model.named_parameters()}
    assert before < after
    added = after - before
    linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding)]
    assert added == {f"{name}.weight_grid.step" for name in linears}


def test_tied_weights_stay_tied_and_share_their_grid():
    model = tiny.tiny_model("bart")
    start = quantize_weights(model, BITS)
    assert start.tied, "the test needs a model with tied weights"
    put_weights_on_learned_grids_(model, start, LearnedSteps)
    encoder, decoder = model.model.encoder.embed_tokens, model.model.decoder.embed_tokens
    assert encoder.weight is decoder.weight
    assert encoder.weight_grid is decoder.weight_grid


def test_gradients_reach_weights_and_the_steps_of_the_rows_read():
    model, batch = tiny.tiny_model("bert"), tiny.tiny_batch()
    put_weights_on_learned_grids_(model, quantize_weights(model, BITS), LearnedSteps)
    model(**batch).logits.square().sum().backward()
    words = model.bert.embeddings.word_embeddings
    read = torch.zeros(len(words.weight), dtype=torch.bool)
    read[batch["input_ids"].unique()] = True
    moved = words.weight_grid.step.grad != 0
    assert bool(moved[read].any()) and not bool(moved[~read].any())
    dense = model.bert.encoder.layer[0].intermediate.dense
    assert bool((dense.weight.grad != 0).any()) and bool((dense.weight_grid.step.grad != 0).any())


def test_a_row_step_has_the_gradient_of_lsq_divided_by_the_size_of_its_row():
    """Esser et al. (2020): equation 3 of each row, times 1/√(values in the row · Q_P)."""
    torch.manual_seed(0)
    weight, upstream = torch.randn(5, 40), torch.randn(5, 40)
    entry = WeightQParams(
        fqn="a.weight", kind="linear", bits=3, shape=(5, 40), quant_min=-4, quant_max=3
    )
    grid = LearnedSteps(entry, torch.linspace(0.2, 0.6, 5))
    grid(weight).backward(upstream)
    v = (weight / grid.step.detach()[:, None]).double()
    slope = torch.where(v <= -4, -4.0, torch.where(v >= 3, 3.0, v.round() - v))
    expected = (slope * upstream).sum(1) / (40 * 3) ** 0.5
    assert grid.step.grad is not None
    torch.testing.assert_close(grid.step.grad, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [LearnedSteps, MinmaxSteps])
def test_quant_noise_rounds_a_share_in_training_and_everything_otherwise(make):
    """Fan et al. 2021: each pass a new random share; all of it for validation."""
    weight = torch.randn(50, 400, generator=torch.Generator().manual_seed(0)).requires_grad_()
    largest = weight.detach().abs().amax(dim=1)
    entry = WeightQParams(
        fqn="w", kind="linear", bits=2, shape=(50, 400), quant_min=-1, quant_max=1
    )
    grid = make(entry, largest)
    grid.noise = 0.25
    whole = grid.eval()(weight).detach()
    torch.manual_seed(0)
    once, again = grid.train()(weight), grid(weight)
    is_rounded = once != weight
    assert torch.equal(once[is_rounded], whole[is_rounded])
    assert float(is_rounded.float().mean()) == pytest.approx(0.25, abs=0.01)
    assert not torch.equal(is_rounded, again != weight)
    once.sum().backward()
    assert (weight.grad == 1).all()  # straight through, or not rounded at all


def test_quant_noise_reaches_every_weight():
    model = tiny.tiny_model("bert")
    start = quantize_weights(model, BITS)
    grids = put_weights_on_learned_grids_(model, start, LearnedSteps, noise=0.25)
    assert {grid.noise for grid in grids.values()} == {0.25}


def test_a_row_of_zeros_stays_zero():
    entry = WeightQParams(
        fqn="a.weight", kind="linear", bits=3, shape=(2, 4), quant_min=-3, quant_max=3
    )
    rows = torch.stack([torch.zeros(4), torch.linspace(-1, 1, 4)])
    found = MinmaxSteps(entry, torch.ones(2))(rows)
    assert found[0].tolist() == [0, 0, 0, 0]
    assert float(found[1].abs().max()) == pytest.approx(1)


def test_a_kind_of_layer_that_is_not_known_is_refused():
    model = tiny.tiny_model("bert")
    start = quantize_weights(model, BITS)
    model.classifier = nn.Bilinear(3, 3, 3)
    with pytest.raises(ModelError, match="Bilinear cannot be trained on a grid"):
        put_weights_on_learned_grids_(model, start, LearnedSteps)
