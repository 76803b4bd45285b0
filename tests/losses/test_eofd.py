"""Laws of the outlier-focused loss: its weights, whose they are, and what padding may do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attar.losses.config import Eofd, HiddenMse, LossConfig
from attar.losses.eofd import Spread, effective_dimensions, outlier_weights
from attar.losses.targets import Outputs, Targets, count_units
from attar.losses.term import Pair, StackShape
from attar.losses.total import LossValues, TotalLoss
from reference.eofd_slow import slow_eofd

ROUNDING = 1e-12
"""Relative: float64 sums of a few hundred terms in another order."""
FLOAT32_SUMS = 2e-6
"""Relative: sums of 3,000 terms in float32, whose epsilon is 1.2e-7."""
FLOAT32_BUFFERS = 1e-5
"""Relative: running spreads are held in float32."""
B, T, D = 4, 6, 8
LENGTHS = torch.tensor([6, 3, 1, 4])
MASK = (torch.arange(T) < LENGTHS[:, None]).long()
SHAPE = {"encoder": StackShape(num_blocks=2, hidden_size=D, heads=2, head_size=4)}


def outputs(seed: int, *, padding: float | None = None) -> Outputs:
    """States in which dimension d varies by about 1 + d, and dimension 2 by far the most."""
    g = torch.Generator().manual_seed(seed)
    size = torch.arange(1.0, D + 1).double()
    size[2] = 50
    states = [torch.randn(B, T, D, generator=g, dtype=torch.float64) * size + 1 for _ in range(3)]
    if padding is not None:
        states = [torch.where(MASK.bool().unsqueeze(-1), state, padding) for state in states]
    return Outputs(torch.zeros(B, 2, dtype=torch.float64), {"encoder": states})


def part(of: Outputs, rows: slice) -> Outputs:
    states = {stack: [state[rows] for state in own] for stack, own in of.hidden.items()}
    return Outputs(of.logits[rows], states)


def targets(rows: slice = slice(None)) -> Targets:
    return Targets(torch.zeros(B, dtype=torch.int64)[rows], {"encoder": MASK[rows]})


def loss_of(config: LossConfig, pair: Pair | None = None) -> TotalLoss:
    return TotalLoss([config], "classification", pair or Pair(SHAPE, SHAPE))


def evaluate(
    loss: TotalLoss, student: Outputs, teacher: Outputs, cuts: Sequence[int] = (0, B)
) -> LossValues:
    """The values of a batch that was cut at these rows: summed, with the last part's facts."""
    rows = [slice(a, b) for a, b in pairwise(cuts)]
    counts = count_units(torch.zeros(B, dtype=torch.int64), {"encoder": int(MASK.sum())})
    loss.look_at([part(teacher, r) for r in rows], [targets(r) for r in rows])
    found = [loss(part(student, r), part(teacher, r), targets(r), counts) for r in rows]
    total = torch.stack([values.total for values in found]).sum()
    return LossValues(total, found[0].terms, found[0].examples, found[-1].facts)


def value(config: LossConfig, student: Outputs, teacher: Outputs, **cut: Any) -> float:
    return float(evaluate(loss_of(config), student, teacher, **cut).total)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_with_padding_counted_it_is_the_published_formula(power: float) -> None:
    student, teacher = outputs(0), outputs(1)
    for index in range(3):
        ours = Eofd(power=power, layer_map={index: index}, count_padding=True)
        pair = student.hidden["encoder"][index], teacher.hidden["encoder"][index]
        expected = slow_eofd(*pair, power)
        assert value(ours, student, teacher) == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_without_padding_it_is_the_formula_over_the_real_tokens_alone(power: float) -> None:
    student, teacher = outputs(0), outputs(1)
    real = (of.hidden["encoder"][1][MASK.bool()].unsqueeze(0) for of in (student, teacher))
    ours = value(Eofd(power=power, layer_map={1: 1}), student, teacher)
    assert ours == pytest.approx(slow_eofd(*real, power), rel=ROUNDING)


@pytest.mark.parametrize("std", ["batch", "running"])
def test_power_zero_is_exactly_the_plain_hidden_loss(std: Any) -> None:
    student, teacher = outputs(0), outputs(1)
    plain = value(HiddenMse(), student, teacher)
    assert value(Eofd(power=0, std=std), student, teacher) == plain
    assert value(Eofd(power=0.5, std=std), student, teacher) != plain


@pytest.mark.parametrize("anything", [1e6, float("inf"), float("nan")])
@pytest.mark.parametrize("std", ["batch", "running"])
def test_what_stands_in_the_padding_does_not_count(anything: float, std: Any) -> None:
    clean = value(Eofd(std=std), outputs(0), outputs(1))
    dirty = value(Eofd(std=std), outputs(0, padding=anything), outputs(1, padding=anything))
    assert dirty == clean


def test_counted_padding_does_count() -> None:
    config = Eofd(count_padding=True)
    plain = value(config, outputs(0), outputs(1))
    assert value(config, outputs(0), outputs(1, padding=100.0)) != pytest.approx(plain, rel=0.01)


@pytest.mark.parametrize("std", ["batch", "running"])
@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize("cuts", [(0, 1, 2, 3, 4), (0, 3, 4)])
def test_the_spread_is_the_whole_batchs_however_it_is_cut(
    std: Any, count_padding: bool, cuts: tuple[int, ...]
) -> None:  # all parts here are padded to one length; otherwise counted padding changes
    config = Eofd(std=std, count_padding=count_padding)
    whole = value(config, outputs(0), outputs(1))
    tolerance = ROUNDING if std == "batch" else FLOAT32_BUFFERS
    assert value(config, outputs(0), outputs(1), cuts=cuts) == pytest.approx(whole, rel=tolerance)


def test_an_error_in_an_outlier_dimension_weighs_more_and_no_mistake_weighs_nothing() -> None:
    teacher = outputs(1)
    assert value(Eofd(), teacher, teacher) == 0
    errors = []
    for dimension in (2, 3):
        states = [state.clone() for state in teacher.hidden["encoder"]]
        states[1][..., dimension] += 1
        student = Outputs(teacher.logits, {"encoder": states})
        errors.append(value(Eofd(power=1), student, teacher))
    assert errors[0] > 5 * errors[1] > 0


def test_a_running_spread_is_that_of_all_tokens_so_far() -> None:
    loss = loss_of(Eofd(std="running", power=1, layer_map={1: 1}))
    seen = [outputs(seed) for seed in (1, 2, 3)]
    for teacher in seen:
        found = evaluate(loss, outputs(0), teacher)
    every = torch.cat([teacher.hidden["encoder"][1][MASK.bool()] for teacher in seen])
    weights = every.std(dim=0) / every.std(dim=0).mean()
    expected = effective_dimensions(weights)
    name = "eofd.encoder.effective_dimensions"
    assert found.facts[name] == pytest.approx(expected, rel=FLOAT32_BUFFERS)
    alone = evaluate(loss_of(Eofd(power=1, layer_map={1: 1})), outputs(0), seen[-1])
    assert alone.facts[name] != pytest.approx(expected, rel=1e-3)


def test_a_step_that_is_not_done_leaves_no_trace_in_the_running_spread() -> None:
    loss = loss_of(Eofd(std="running"))
    evaluate(loss, outputs(0), outputs(1))
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    evaluate(loss, outputs(0), outputs(2))
    assert any(not torch.equal(loss.state_dict()[name], before[name]) for name in before)
    loss.forget()
    assert all(torch.equal(loss.state_dict()[name], before[name]) for name in before)
    loss.forget()
    assert all(torch.equal(loss.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("std", ["batch", "running"])
def test_a_teacher_that_is_no_number_shows_in_the_loss_and_not_in_the_buffers(std: Any) -> None:
    loss, broken = loss_of(Eofd(std=std)), outputs(1)
    broken.hidden["encoder"][1][0, 0, 0] = float("nan")
    assert evaluate(loss, outputs(0), broken).total.isnan()
    buffers = list(loss.buffers())
    assert bool(buffers) == (std == "running")
    assert all(bool(buffer.isfinite().all()) for buffer in buffers)
    assert evaluate(loss, outputs(0), outputs(2)).total.isfinite()


def test_each_layer_of_each_stack_has_weights_of_its_own() -> None:
    shape = dict.fromkeys(("encoder", "decoder"), SHAPE["encoder"])
    loss = loss_of(Eofd(power=1), Pair(shape, shape))
    flat, spiky = torch.randn(B, T, D), torch.randn(B, T, D)
    spiky[..., 0] *= 1000
    both = {"encoder": [flat, flat, spiky], "decoder": [spiky, spiky, flat]}
    masks = {stack: torch.ones(B, T, dtype=torch.int64) for stack in shape}
    batch = Targets(torch.zeros(B, dtype=torch.int64), masks)
    teacher = Outputs(torch.zeros(B, 2), both)
    loss.look_at([teacher], [batch])
    counts = count_units(batch.labels, dict.fromkeys(shape, B * T))
    facts = loss(teacher, teacher, batch, counts).facts
    assert facts["eofd.encoder.effective_dimensions_last"] == pytest.approx(1, abs=0.1)
    assert facts["eofd.decoder.effective_dimensions_last"] > 0.9 * D
    encoder, decoder = (facts[f"eofd.{stack}.effective_dimensions"] for stack in shape)
    assert encoder > 2 * decoder - 2 and encoder > 0.6 * D > decoder


def test_gradient_reaches_the_student_and_no_weight_of_the_teacher() -> None:
    student, teacher = outputs(0), outputs(1)
    states = [*student.hidden["encoder"], *teacher.hidden["encoder"]]
    for state in states:
        state.requires_grad_()
    evaluate(loss_of(Eofd(std="running")), student, teacher).total.backward()
    assert all(state.grad is not None for state in states[:3])
    assert all(state.grad is None for state in states[3:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cuts", [[3000], [0, 1000, 1000, 1000]])
def test_spreads_of_half_precision_states_are_those_of_float64(
    dtype: torch.dtype, cuts: list[int]
) -> None:
    g = torch.Generator().manual_seed(0)
    states = (torch.randn(3000, 5, generator=g) * torch.tensor([0.1, 1, 3, 9, 40]) + 2).to(dtype)
    found, exact = Spread.of_all(states.split(cuts)), states.double()
    torch.testing.assert_close(found.std.double(), exact.std(dim=0), rtol=FLOAT32_SUMS, atol=0)
    torch.testing.assert_close(found.mean.double(), exact.mean(dim=0), rtol=FLOAT32_SUMS, atol=0)


def test_weights_under_half_precision_are_those_of_float64() -> None:
    low = Outputs(
        outputs(1).logits,
        {"encoder": [state.bfloat16() for state in outputs(1).hidden["encoder"]]},
    )
    high = Outputs(low.logits, {"encoder": [s.double() for s in low.hidden["encoder"]]})
    name = "eofd.encoder.effective_dimensions"
    facts = [evaluate(loss_of(Eofd(power=1)), outputs(0), of).facts[name] for of in (low, high)]
    assert facts[0] == pytest.approx(facts[1], rel=FLOAT32_SUMS)


def test_a_running_spread_survives_batches_without_a_token() -> None:
    nothing, some = torch.zeros(0, 3), torch.randn(5, 3)
    for pieces in ([nothing, nothing], [nothing, nothing, some], [some, nothing, nothing]):
        found = Spread.of_all(pieces)
        assert int(found.count) == sum(map(len, pieces))
        assert found.mean.isfinite().all() and found.std.isfinite().all()


@settings(deadline=None, max_examples=50)  # a busy machine is no failure
@example([0, 0, 3], 0)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 2**31))
def test_spreads_of_any_pieces_merge_to_that_of_the_whole(sizes: list[int], seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    pieces = [torch.randn(size, 3, generator=g, dtype=torch.float64) + 1e3 for size in sizes]
    merged, whole = Spread.of_all(pieces), torch.cat(pieces)
    assert int(merged.count) == len(whole)
    if len(whole) > 1:
        # The values lie at 1e3, where float64 resolves 1e-13, and spread by 1.
        torch.testing.assert_close(merged.std, whole.std(dim=0), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(merged.mean, whole.mean(dim=0), rtol=ROUNDING, atol=0)


def test_tokens_beyond_what_float32_can_count_are_counted() -> None:
    many = Spread(torch.tensor(2**24), torch.zeros(2), torch.ones(2))
    assert int(many.merged(Spread.of(torch.zeros(1, 2))).count) == 2**24 + 1


def test_weights_do_not_depend_on_the_unit_and_are_one_where_nothing_varies() -> None:
    std = torch.tensor([1.0, 2.0, 9.0])
    torch.testing.assert_close(outlier_weights(std, 0.5), outlier_weights(std * 100, 0.5))
    assert outlier_weights(std, 0.0).tolist() == [1.0] * 3
    assert outlier_weights(torch.zeros(3), 0.5).tolist() == [1.0] * 3
    one_token = Spread.of(torch.ones(1, 3))
    assert outlier_weights(one_token.std, 0.5).tolist() == [1.0] * 3
