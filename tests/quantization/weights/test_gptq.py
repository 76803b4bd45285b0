"""GPTQ: errors are made good by correlated inputs, and only by those."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from attar.numerics.affine import QParams, choose_qparams, dequantize, quantize
from attar.numerics.granularity import per_channel_range
from attar.progress import Progress
from attar.quantization.weights.gptq import gptq, gptq_rule, seen_inputs
from attar.quantization.weights.nearest import quantize_weights
from attar.step import StepContext

HERE = Path()
CONTEXT = StepContext("int4", HERE, HERE, {}, {}, HERE, Progress(quiet=True))


def grid_of(weight: torch.Tensor, bits: int = 4) -> QParams:
    return choose_qparams(*per_channel_range(weight), bits, symmetric=True)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def output_error(weight: torch.Tensor, grid: QParams, integers: torch.Tensor, x: torch.Tensor):
    return float((x @ (weight - dequantize(integers, grid, axis=0)).T).square().sum())


def test_with_unrelated_inputs_every_value_goes_to_its_nearest_point() -> None:
    weight, grid = random(6, 10), grid_of(random(6, 10))
    moment = torch.diag(torch.rand(10, generator=torch.Generator().manual_seed(1)) + 0.5)
    assert torch.equal(gptq(weight, grid, moment), quantize(weight, grid, axis=0))


@pytest.mark.parametrize("inputs", [24, 300])
def test_with_related_inputs_the_output_is_nearer_than_by_nearest(inputs: int) -> None:
    mixing = random(8, inputs)
    x = random(500, 8) @ mixing + 0.1 * random(500, inputs)
    weight = random(12, inputs)
    grid = grid_of(weight)
    ours = output_error(weight, grid, gptq(weight, grid, x.T @ x), x)
    theirs = output_error(weight, grid, quantize(weight, grid, axis=0), x)
    assert ours < 0.5 * theirs


def test_integers_stay_on_the_grid() -> None:
    x, weight = random(64, 16) + 3, 5 * random(4, 16)
    grid = grid_of(weight, bits=2)
    integers = gptq(weight, grid, x.T @ x)
    assert int(integers.min()) >= grid.quant_min
    assert int(integers.max()) <= grid.quant_max


def test_inputs_that_are_all_zero_do_no_harm() -> None:
    weight = random(4, 6)
    grid = grid_of(weight)
    assert torch.equal(gptq(weight, grid, torch.zeros(6, 6)), quantize(weight, grid, axis=0))


def test_padding_is_no_input() -> None:
    model = tiny.tiny_model("bert")
    ids = torch.tensor([[2, 7, 8, 3]])
    short = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    padded = {
        "input_ids": torch.tensor([[2, 7, 8, 3, 0, 0], [2, 7, 8, 3, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]] * 2),
    }
    once, twice = (seen_inputs(model, [batch], CONTEXT)[0] for batch in (short, padded))
    assert once.keys() == twice.keys()
    for name, moment in once.items():
        assert torch.allclose(2 * moment, twice[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("family", ["bert", "bart"])
def test_every_linear_is_rounded_by_what_it_reads(family: str) -> None:
    from attar.models.simulated.qparams import Bits

    model = tiny.tiny_model(family)
    batch = {"input_ids": torch.tensor([[2, 7, 8, 3]]), "attention_mask": torch.ones(1, 4).long()}
    rounder = gptq_rule(model, [batch], CONTEXT)
    bits = Bits(weight=4, embedding=4, activation=8)
    found, plain = rounder.quantize(model, bits), quantize_weights(model, bits)
    assert found.integers.keys() == plain.integers.keys()
    changed = [n for n in found.integers if not torch.equal(found.integers[n], plain.integers[n])]
    assert len(changed) > len(found.integers) // 2
