"""What one tensor alone costs, and the passes that are cut short."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers as hf

import tiny
from attar.errors import StoppedError
from attar.models.simulated.qparams import Bits
from attar.models.structure.ports import use_attar_attention_
from attar.models.structure.sites import sites_of
from attar.progress import Progress
from attar.quantization.calibration.calibrate import Calibration, calibrate
from attar.quantization.calibration.outputs import real_logits
from attar.quantization.method import BitPlan, Method, Problem, no_search
from attar.quantization.precision.allocate import _site_widths
from attar.quantization.precision.cost import average_bits, planned_mib, weight_bytes, weights_of
from attar.quantization.precision.latency import Group, assembled, groups_of
from attar.quantization.precision.tensor_errors import (
    Prefix,
    Probe,
    every_nth,
    non_increasing,
    site_sensitivities,
    weight_sensitivities,
)
from attar.quantization.precision.together import quantize_together
from attar.quantization.ranges.extremes import minmax
from attar.quantization.solve import simulated
from attar.quantization.weights.nearest import quantize_weights
from attar.step import StepContext

PLAN = BitPlan(Bits(weight=8, embedding=8, activation=8))


def probe_of(family: str = "bert", should_stop=lambda: False) -> Probe:
    model = tiny.tiny_model(family)
    use_attar_attention_(model)
    here = Path()
    context = StepContext(
        "int8", here, here, {}, {}, here, Progress(quiet=True), should_stop=lambda: False
    )
    batches = [tiny.tiny_batch(seed=seed) for seed in range(2)]
    calibration = calibrate(model, sites_of(model), batches, context)
    config = SimpleNamespace(transform=None, weights=None)
    problem = Problem(config, context, None, PLAN, model, model, calibration, here)
    probe = Probe.of(problem, Method(minmax, no_search))
    object.__setattr__(probe.problem.context, "should_stop", should_stop)
    return probe


@pytest.fixture(scope="module")
def probe() -> Probe:
    return probe_of()


def test_sensitivities_fall_with_the_width_and_are_small_at_eight_bits(probe):
    weights = weights_of(probe.model)
    found = weight_sensitivities(probe, weights, [2, 4, 8])
    assert list(found) == [weight.fqn for weight in weights]
    for by_width in found.values():
        assert by_width[2] >= by_width[4] >= by_width[8] >= 0
    assert sum(by[8] for by in found.values()) < 0.01 * sum(by[2] for by in found.values())


def test_a_sensitivity_is_the_error_of_the_outputs_with_that_tensor_alone_rounded(probe):
    """Rounded by hand in a copy: one weight of each kind, and one site."""
    batches = probe.problem.calibration.batches
    words, linear = "bert.embeddings.word_embeddings", "bert.encoder.layer.1.intermediate.dense"

    def outputs(model) -> list[torch.Tensor]:
        with torch.no_grad():
            return [model(**batch).logits.double() for batch in batches]

    def error(model) -> float:
        pairs = zip(outputs(model), outputs(probe.model), strict=True)
        return float(torch.cat([ours - theirs for ours, theirs in pairs]).square().mean())

    weights = [
        weight for weight in weights_of(probe.model) if weight.fqn.startswith((words, linear))
    ]
    found = weight_sensitivities(probe, weights, [3])
    assert len(found) == 2
    for name, by_width in found.items():
        model = copy.deepcopy(probe.model)
        weight = model.get_parameter(name)
        with torch.no_grad():
            scale = weight.abs().amax(1, keepdim=True) / 3
            weight.copy_((weight / scale).round().clamp(-3, 3) * scale)
        assert by_width[3] == pytest.approx(error(model), rel=1e-4)
    site = next(s for s in probe.problem.calibration.statistics if s.kind == "ffn_act")
    seen = probe.problem.calibration.statistics[site]
    scale = (seen.mean_high - min(seen.mean_low, 0)) / 7
    zero = round(-min(seen.mean_low, 0) / scale)

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return ((x / scale).round() + zero).clamp(0, 7).sub(zero) * scale

    model = copy.deepcopy(probe.model)
    module = model.get_submodule(site.fqn)
    module.register_forward_pre_hook(lambda _, args: (rounded(args[0]),))
    assert site.port == "input"
    alone = site_sensitivities(probe, [site], [3])[site.name][3]
    assert alone == pytest.approx(error(model), rel=1e-3)


def test_widths_of_sites_keep_their_mean_counted_by_values_and_leave_no_room(probe):
    """No site can be widened by one step within the budget that is left."""
    statistics = probe.problem.calibration.statistics
    widths, mean = [2, 4, 6, 8], 5
    plan = BitPlan(Bits(weight=8, embedding=8, activation=mean))
    narrow = replace(probe, problem=replace(probe.problem, plan=plan))
    found = _site_widths(narrow, widths)
    counts = {site.name: seen.histogram.num_values for site, seen in statistics.items()}
    assert found.keys() == counts.keys()
    assert max(counts.values()) > 5 * min(counts.values())
    left = mean * sum(counts.values()) - sum(found[name] * n for name, n in counts.items())
    assert left >= 0
    wider = dict(itertools.pairwise(widths))
    steps = [(wider[b] - b) * counts[name] for name, b in found.items() if b in wider]
    assert steps
    assert min(steps) > left


def test_a_weight_is_itself_again_after_its_sensitivity(probe):
    before = {name: tensor.clone() for name, tensor in probe.model.state_dict().items()}
    weight_sensitivities(probe, weights_of(probe.model)[:3], [2])
    site_sensitivities(probe, list(probe.problem.calibration.statistics)[:3], [2])
    for name, tensor in probe.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert probe.error_of(
        real_logits(probe.model, batch).detach() for batch in probe.problem.calibration.batches
    ) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_pass_cut_short_gives_the_whole_pass_bit_for_bit(family):
    """Every weight in turn is disturbed; blocks in front of it answer from memory."""
    probe = probe_of(family)
    batches = probe.problem.calibration.batches
    prefix = Prefix(probe.model, batches)
    parameters = dict(probe.model.named_parameters())
    for weight in weights_of(probe.model):
        parameter = parameters[weight.fqn]
        before = parameter.data
        parameter.data = before * 1.5
        short = list(prefix.logits(prefix.first_user_of(parameter)))
        with torch.inference_mode():
            whole = [real_logits(probe.model, batch) for batch in batches]
        parameter.data = before
        for a, b in zip(short, whole, strict=True):
            assert torch.equal(a, b), weight.fqn


def test_blocks_in_front_are_not_computed(probe):
    prefix = Prefix(probe.model, probe.problem.calibration.batches)
    last = probe.model.get_submodule("bert.encoder.layer.1.output.dense")
    list(prefix.logits(last))  # keeps what it needs
    ran = []
    first = probe.model.get_submodule("bert.encoder.layer.0.output.dense")
    handle = first.register_forward_hook(lambda *_: ran.append(1))
    list(prefix.logits(last))
    assert ran == []
    list(prefix.logits(first))
    handle.remove()
    assert len(ran) == len(prefix.batches)


def test_the_repair_is_the_smallest_majorant_that_never_rises():
    assert non_increasing({2: 5, 3: 1, 4: 2, 8: 0}) == {2: 5, 3: 2, 4: 2, 8: 0}
    assert non_increasing({2: 3, 4: 2, 8: 1}) == {2: 3, 4: 2, 8: 1}


def test_a_stop_is_honoured_between_two_tensors():
    calls = iter([False, False, True])
    stopping = probe_of(should_stop=lambda: next(calls))
    with pytest.raises(StoppedError, match=r"sensitivity of weights \(1 of \d+\) has no"):
        weight_sensitivities(stopping, weights_of(stopping.model), [2, 8])


def test_sizes_add_up_to_the_model(probe):
    weights = weights_of(probe.model)
    every = BitPlan(PLAN.bits, float_tensors=frozenset(weight.fqn for weight in weights))
    held = sum(4 * p.numel() for p in probe.model.state_dict().values())
    assert planned_mib(probe.model, every) * 2**20 == pytest.approx(held)
    saved = sum(weight_bytes(weight, None) - weight_bytes(weight, 8) for weight in weights)
    assert planned_mib(probe.model, PLAN) * 2**20 == pytest.approx(held - saved)
    assert average_bits(PLAN, weights) == 8
    assert average_bits(every, weights) == 32


def test_a_plan_carried_out_rounds_weights_and_sites_together(probe):
    """One weight and one site stay float, another weight has bits of its own."""
    words, site = (
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.1.output.dense:input",
    )
    up = "bert.encoder.layer.0.intermediate.dense.weight"
    plan = BitPlan(Bits(weight=4, embedding=4, activation=4), {}, {up: 3}, frozenset({words, site}))
    found = quantize_together(probe, plan)
    wanted = simulated(
        probe.model, quantize_weights(probe.model, plan.weight, left_float=plan.float_tensors)
    )
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    assert torch.equal(found.model.get_parameter(words), probe.model.get_parameter(words))
    assert len(found.model.get_parameter(up)[0].unique()) <= 7
    names = {grid.name for grid in found.grids}
    assert names == {s.name for s in probe.problem.calibration.statistics} - {site}
    calibration = probe.problem.calibration
    assert found.output_error == calibration.output_error(wanted, found.grids) > 0


def test_sensitivities_are_measured_on_texts_of_all_lengths_of_a_batch():
    ids = torch.arange(8)[:, None]
    here = Path()
    context = StepContext("s", here, here, {}, {}, here, Progress(quiet=True))
    whole = Calibration([{"input_ids": ids}, {"input_ids": ids + 8}], {}, [], 0.0, context)
    thinned = [batch["input_ids"].flatten().tolist() for batch in every_nth(whole, 8)]
    assert thinned == [[0, 2, 4, 6], [8, 10, 12, 14]]


def test_the_width_of_a_site_in_the_plan_does_not_change_its_sensitivity_at_others(probe):
    site = next(iter(probe.problem.calibration.statistics))
    plan = replace(PLAN, of_sites={site.name: 2})
    other = replace(probe, problem=replace(probe.problem, plan=plan))
    assert site_sensitivities(other, [site], [4, 6]) == site_sensitivities(probe, [site], [4, 6])


def test_a_tied_weight_is_one_weight():
    model = hf.BertForMaskedLM(tiny.tiny_config("bert"))
    found = [weight.fqn for weight in weights_of(model)]
    assert "bert.embeddings.word_embeddings.weight" in found
    assert "cls.predictions.decoder.weight" not in found
    stored = {id(p): p.numel() for p in model.parameters() if p.ndim == 2}
    assert sum(weight.numel for weight in weights_of(model)) == sum(stored.values())


def test_each_linear_is_found_behind_the_site_it_reads(probe):
    sites = list(probe.problem.calibration.statistics)
    text = {
        "input_ids": torch.full((1, 7), 5),
        "attention_mask": torch.ones(1, 7, dtype=torch.int64),
    }
    groups = {group.site.name: group for group in groups_of(probe.model, sites, text)}
    block = "bert.encoder.layer.0"
    attention = f"{block}.attention.self"
    assert groups["bert.embeddings.LayerNorm:output"].linears == tuple(
        f"{attention}.{part}.weight" for part in ("query", "key", "value")
    )
    up = groups[f"{block}.attention.output.LayerNorm:output"]
    assert (up.linears, up.shapes) == ((f"{block}.intermediate.dense.weight",), ((7, 32, 48),))
    assert groups[f"{block}.output.dense:input"].linears == (f"{block}.output.dense.weight",)
    assert groups["bert.pooler.dense:input"].shapes == ((1, 32, 32),)
    read = [name for group in groups.values() for name in group.linears]
    linears = [weight.fqn for weight in weights_of(probe.model) if weight.kind == "linear"]
    assert sorted(read) == sorted(linears)


@pytest.mark.parametrize("model_ms", [10.0, 4.0])
def test_all_in_float_is_predicted_to_take_what_the_float_model_takes(probe, model_ms):
    """Also where single Linears add up to more than the whole."""
    shape = (7, 32, 48)
    site = next(iter(probe.problem.calibration.statistics))
    group = Group(site, ("a", "b"), (shape, shape))
    found = assembled(model_ms, {shape: 3.0}, {shape: 1.0}, group.shapes)
    assert found.rest_ms >= 0
    assert found.rest_ms + found.group_ms(group, is_int8=False) == pytest.approx(model_ms)
    ratio = found.group_ms(group, is_int8=False) / found.group_ms(group, is_int8=True)
    assert ratio == pytest.approx(3)
