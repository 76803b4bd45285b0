"""GPTQ: errors are made good by correlated inputs, and only by those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from attar.models.simulated.qparams import Bits
from attar.numerics.affine import QParams, choose_qparams, dequantize, per_channel_range, quantize
from attar.progress import Progress
from attar.quantization.weights.gptq import gptq, seen_inputs
from attar.quantization.weights.nearest import quantize_weights
from attar.quantization.weights.rules import gptq_rule
from attar.step import StepContext

HERE = Path()
CONTEXT = StepContext("int4", HERE, HERE, {}, {}, HERE, Progress(quiet=True))


def grid_of(weight: torch.Tensor, bits: int = 4) -> QParams:
    return choose_qparams(*per_channel_range(weight), bits, symmetric=True)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def output_error(weight: torch.Tensor, grid: QParams, integers: torch.Tensor, x: torch.Tensor):
    return float((x @ (weight - dequantize(integers, grid, axis=0)).T).square().sum())


def by_the_formula(weight: torch.Tensor, grid: QParams, moment: torch.Tensor) -> torch.Tensor:
    """The paper's equations 2 and 3 with a fresh inverse at every column, in float64."""
    mean = float(moment.diagonal().double().mean())
    hessian = moment.double() + 0.01 * mean * torch.eye(len(moment))
    left, scale = weight.double().clone(), grid.scale.double()
    integers = torch.zeros(weight.shape, dtype=torch.int32)
    to_go = sorted(range(len(moment)), key=lambda i: -float(moment[i, i]))
    while to_go:
        inverse = torch.linalg.inv(hessian[to_go][:, to_go])
        column = to_go[0]
        rounded = (left[:, column] / scale).round().clamp(grid.quant_min, grid.quant_max)
        integers[:, column] = rounded.to(torch.int32)
        error = (left[:, column] - rounded * scale) / inverse[0, 0]
        left[:, to_go] -= error[:, None] * inverse[0]
        to_go = to_go[1:]
    return integers


@pytest.mark.parametrize("inputs", [4, 140])
def test_integers_are_those_of_the_formula(inputs: int) -> None:
    """Loud and silent inputs, all related; 140 of them are rounded in two blocks."""
    loudness = torch.logspace(-1, 1, inputs)[random(inputs).argsort()]
    x = loudness * (random(200, 3) @ random(3, inputs) + 0.2 * random(200, inputs))
    weight = random(6, inputs)
    grid, moment = grid_of(weight), x.T @ x
    wanted = by_the_formula(weight, grid, moment)
    assert torch.equal(gptq(weight, grid, moment), wanted)
    assert not torch.equal(wanted, quantize(weight, grid, axis=0))


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


def reads(model: Any, fqn: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a module reads in a pass, (B, T, I)."""
    caught: list[torch.Tensor] = []
    module = model.get_submodule(fqn)
    handle = module.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return caught[0].double()


def test_moments_are_sums_over_all_batches() -> None:
    model = tiny.tiny_model("bert")
    batches = [tiny.tiny_batch(tokens=5, seed=1), tiny.tiny_batch(tokens=8, seed=2)]
    moments, _ = seen_inputs(model, batches, CONTEXT)
    for linear in ("encoder.layer.0.attention.self.query", "encoder.layer.1.output.dense"):
        values = [reads(model, f"bert.{linear}", b)[b["attention_mask"] > 0] for b in batches]
        x = torch.cat(values)
        torch.testing.assert_close(moments[f"bert.{linear}.weight"], x.T @ x, rtol=1e-5, atol=1e-5)


def test_both_sides_of_an_encoder_decoder_count_their_own_real_tokens() -> None:
    """Cross-attention: keys and values read the source's tokens, queries those of the target."""
    model = tiny.tiny_model("bart")
    batch = tiny.tiny_batch(batch=2, tokens=8)
    target = torch.tensor([[1] * 3 + [0] * 5, [1] * 8])
    batch |= {"decoder_input_ids": batch["input_ids"], "decoder_attention_mask": target}
    moments, _ = seen_inputs(model, [batch], CONTEXT)
    source = batch["attention_mask"]
    assert not torch.equal(source, target)
    for stack, part, mask in (
        ("encoder", "self_attn.k_proj", source),
        ("decoder", "self_attn.k_proj", target),
        ("decoder", "encoder_attn.q_proj", target),
        ("decoder", "encoder_attn.k_proj", source),
        ("decoder", "encoder_attn.v_proj", source),
        ("decoder", "fc2", target),
    ):
        fqn = f"model.{stack}.layers.1.{part}"
        x = reads(model, fqn, batch)[mask > 0]
        torch.testing.assert_close(moments[f"{fqn}.weight"], x.T @ x, rtol=1e-5, atol=1e-5)


def test_a_row_is_clipped_where_its_inputs_are_quiet() -> None:
    """The scale with the least Σ h_i (w_i − ŵ_i)², h the sum of the squares of input i."""
    model = tiny.tiny_model("bert")
    batch = tiny.tiny_batch()
    linear = "bert.encoder.layer.1.output.dense"
    weight = model.get_parameter(f"{linear}.weight").detach().double()
    h = reads(model, linear, batch)[batch["attention_mask"] > 0].square().sum(0)
    rounder = gptq_rule(model, [batch], CONTEXT)
    found = rounder.quantize(model, Bits(weight=3, embedding=3, activation=8))
    widest = weight.abs().amax(1) / 3
    tried = torch.stack([widest * (1 - 0.025 * k) for k in range(25)])
    lost = torch.stack(
        [(weight - (weight / s).round().clamp(-3, 3) * s).square() @ h for s in tried[:, :, None]]
    )
    best = tried.gather(0, lost.argmin(0)[None])[0]
    torch.testing.assert_close(found.scales[f"{linear}.weight"].double(), best, rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", ["bert", "bart"])
def test_every_linear_is_rounded_by_what_it_reads(family: str) -> None:
    model = tiny.tiny_model(family)
    batch = {"input_ids": torch.tensor([[2, 7, 8, 3]]), "attention_mask": torch.ones(1, 4).long()}
    rounder = gptq_rule(model, [batch], CONTEXT)
    bits = Bits(weight=4, embedding=4, activation=8)
    found, plain = rounder.quantize(model, bits), quantize_weights(model, bits)
    assert found.integers.keys() == plain.integers.keys()
    changed = [n for n in found.integers if not torch.equal(found.integers[n], plain.integers[n])]
    assert len(changed) > len(found.integers) // 2
