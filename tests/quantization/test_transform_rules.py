"""The rules that choose a transform: formulas, what they may look at, what they promise."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import transformers as hf

import tiny
import transforms
from attar.errors import ModelError, StoppedError
from attar.models.structure.anatomy import anatomy_of
from attar.quantization.transforms.equivalent import EquivalentTransform
from attar.quantization.transforms.gamma import SMALLEST_GAMMA, gamma_transform
from attar.quantization.transforms.observed import MOST_ROWS, ReadRows, observe
from attar.quantization.transforms.os_plus import os_plus_candidates, os_plus_transform
from attar.quantization.transforms.rules import TRANSFORMS, choose
from attar.quantization.transforms.site_error import SiteError, SiteSqnr
from attar.quantization.transforms.smoothquant import smoothquant_transform

BATCHES = [tiny.tiny_batch(), tiny.tiny_batch(seed=1)]
NOTHING = EquivalentTransform.of_scale(torch.ones(32))


def with_outliers(family: str = "bert"):
    """A tiny model whose norms have two channel outliers, as pretrained models do."""
    model = tiny.tiny_model(family)
    with torch.no_grad():
        for site in anatomy_of(model).norm_sites:
            site.norm.weight[5] *= 12
            if site.norm.bias is not None:
                site.norm.bias[9] += 15
    return model


@pytest.fixture
def seen(tmp_path):
    """(site, what its readers get, their error at 6 bits) of every norm of a model."""
    model = with_outliers()
    sites = anatomy_of(model).norm_sites
    found = observe(model, sites, BATCHES, transforms.context(tmp_path))
    rows = [found[site.norm.fqn] for site in sites]
    return [(site, r, error_of(site, r)) for site, r in zip(sites, rows, strict=True)]


def error_of(site, rows, bits: int = 6) -> SiteError:
    return SiteError(site, rows.rows, weight_bits=bits, activation_bits=bits)


def test_extremes_do_not_depend_on_how_a_stream_is_cut():
    values = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    whole, pieces = ReadRows(), ReadRows(1)
    whole.add(values)
    for piece in values.split([130, 120, 150]):
        pieces.add(piece)
    assert torch.equal(pieces.low, whole.low)
    assert torch.equal(pieces.high, values.max(0).values)
    assert pieces.num_tokens == whole.num_tokens == 400
    assert torch.equal(pieces.rows.sort(0).values, values.sort(0).values)


def test_a_sample_is_bounded_seeded_and_fair():
    values = torch.arange(4.0 * MOST_ROWS)[:, None]
    samples = []
    for seed in (0, 0, 1):
        rows = ReadRows(seed)
        for part in values.split(700):
            rows.add(part)
        samples.append(rows.rows.flatten())
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    for sample in samples:
        assert len(sample) == len(sample.unique()) == MOST_ROWS
        # the mean of 1024 numbers spread evenly over 4096 strays by 37
        assert abs(float(sample.mean()) - 2 * MOST_ROWS) < 4 * 37


def test_padding_and_its_side_change_nothing(tmp_path):
    model = with_outliers("bert")
    longer = [
        {name: torch.nn.functional.pad(x, (0, 5), value=0) for name, x in batch.items()}
        for batch in BATCHES
    ]
    details = [
        TRANSFORMS["os_plus"](
            copy.deepcopy(model), batches, transforms.settings(), transforms.context(tmp_path)
        )
        for batches in (BATCHES, longer)
    ]
    for ours, theirs in zip(details[0]["norms"], details[1]["norms"], strict=True):
        assert ours == theirs
    found = observe(model, anatomy_of(model).norm_sites, BATCHES, transforms.context(tmp_path))
    counts = [rows.num_tokens for rows in found.values()]
    real = sum(int(batch["attention_mask"].sum()) for batch in BATCHES)
    # the pooler reads one token of each of six texts
    assert counts == [real] * 4 + [6]


def test_gamma_leaves_norms_that_scale_nothing():
    model = transforms.with_odd_gammas(tiny.tiny_model("bert"))
    for site in anatomy_of(model).norm_sites:
        gamma = site.norm.weight.detach().double()
        scale = gamma_transform(site).scale
        is_silent = gamma.abs() <= SMALLEST_GAMMA * gamma.abs().median()
        assert set(transforms.SILENT) <= set(is_silent.nonzero().flatten().tolist())
        assert torch.equal(scale[is_silent], torch.ones_like(scale[is_silent]))
        assert torch.equal(scale[~is_silent], gamma[~is_silent])
        assert (scale[list(transforms.FLIPPED)] < 0).all()


def test_smoothquant_is_its_formula_over_all_readers_together(seen):
    site, rows, _ = seen[0]
    assert len(site.consumers) == 3
    weights = [consumer.weight.detach() for consumer in site.consumers]
    for alpha in (0.0, 0.5, 1.0):
        scale = smoothquant_transform(site, rows, alpha).scale
        for j in range(32):
            activation = max(abs(float(row[j])) for row in rows.rows)
            weight = max(abs(float(each[i, j])) for each in weights for i in range(32))
            assert float(scale[j]) == pytest.approx(
                activation**alpha / weight ** (1 - alpha), rel=1e-12
            )


def test_a_channel_that_is_silent_keeps_its_scale(seen):
    site, rows, _ = seen[0]
    rows.low[3] = rows.high[3] = 0.0
    with torch.no_grad():
        for consumer in site.consumers:
            consumer.weight[:, 4] = 0.0
    for transform in (smoothquant_transform(site, rows, 0.5), *os_plus_candidates(site, rows)):
        assert torch.isfinite(transform.scale).all()
        assert transform.scale[3] == 1
    assert smoothquant_transform(site, rows, 0.5).scale[4] == 1


def test_os_plus_centres_every_channel_and_narrows_the_wide_ones(seen):
    for site, rows, error in seen:
        assert site.can_shift
        transform = os_plus_transform(site, rows, error)
        low, high = transform.forward(rows.low.double()), transform.forward(rows.high.double())
        torch.testing.assert_close(low, -high, rtol=1e-9, atol=1e-9)
        assert (transform.scale >= 1).all()
        is_scaled = transform.scale > 1
        threshold = float(high.max())
        torch.testing.assert_close(high[is_scaled], torch.full_like(high[is_scaled], threshold))
        assert (high <= threshold * (1 + 1e-9)).all()


def test_os_plus_keeps_the_threshold_with_the_least_error(seen):
    site, rows, error = seen[1]
    candidates = os_plus_candidates(site, rows)
    found = [error.sqnr(candidate).all_values for candidate in candidates]
    assert torch.equal(candidates[0].scale, torch.ones_like(candidates[0].scale))
    chosen = error.sqnr(os_plus_transform(site, rows, error)).all_values
    assert chosen == max(found) > found[0] + 3


def test_without_biases_os_plus_scales_only(tmp_path):
    model = with_outliers("llama")
    sites = anatomy_of(model).norm_sites
    found = observe(model, sites, BATCHES, transforms.context(tmp_path))
    for site in sites:
        for candidate in os_plus_candidates(site, found[site.norm.fqn]):
            assert not candidate.shift.any()


def test_os_plus_narrows_what_reaches_far_below_zero_as_what_reaches_above(tmp_path):
    """RMSNorm cannot shift: a channel's reach is that of its farther side. Twelve thresholds, in
    equal ratios from the widest channel down to where a tenth of them still reaches less."""
    model = tiny.tiny_model("llama")
    site = anatomy_of(model).norm_sites[0]
    rows = observe(model, [site], BATCHES, transforms.context(tmp_path))[site.norm.fqn]
    rows.low[:16] -= 20
    reach = [max(float(high), -float(low)) for low, high in zip(rows.low, rows.high, strict=True)]
    widest, narrow = max(reach), float(np.quantile(np.array(reach), 0.1))
    assert widest > 20 > narrow
    candidates = os_plus_candidates(site, rows)
    assert len(candidates) == 12
    for number, candidate in enumerate(candidates):
        threshold = widest * (narrow / widest) ** (number / 11)
        wanted = torch.tensor([max(1.0, r / threshold) for r in reach], dtype=torch.float64)
        torch.testing.assert_close(candidate.scale, wanted, rtol=1e-6, atol=0)


def test_a_decoder_s_norms_are_judged_by_what_the_decoder_reads(tmp_path):
    """A source and a target as wide as each other, padded differently."""
    model = hf.BartForConditionalGeneration(tiny.tiny_config("bart")).eval()
    model.set_attn_implementation("eager")
    batch = tiny.tiny_batch(batch=2, tokens=8)
    target = torch.tensor([[1] * 3 + [0] * 5, [1] * 8])
    batch |= {"decoder_input_ids": batch["input_ids"], "decoder_attention_mask": target}
    sites = [site for site in anatomy_of(model).norm_sites if site.is_closed]
    found = observe(model, sites, [batch], transforms.context(tmp_path))
    assert {site.stack for site in sites} == {"encoder", "decoder"}
    for site in sites:
        wanted = target if site.stack == "decoder" else batch["attention_mask"]
        assert found[site.name].num_tokens == int(wanted.sum()), site.name


@pytest.mark.parametrize("clips", [False, True])
def test_the_error_of_a_site_is_what_its_readers_lose(seen, clips):
    """Recomputed slowly for the norm before a feed-forward: one map and one shortcut; with the
    range of all values, and with that of all but one in a hundred of the tokens' extremes."""
    site, rows, error = seen[1]
    (up,) = site.consumers
    generator = torch.Generator().manual_seed(0)
    scale, shift = torch.randn(2, 32, generator=generator, dtype=torch.float64)
    x, y = (rows.rows - shift) / scale, rows.rows.double()
    low, high = x.min(), x.max()
    if clips:
        low, high = x.amin(1).quantile(0.01), x.amax(1).quantile(0.99)
    step = float((high - low) / 63)
    zero = round(float(-low / step))
    rounded = ((x / step).round() + zero).clamp(0, 63).sub(zero) * step
    weight = up.weight.detach().double() * scale
    steps = weight.abs().amax(1, keepdim=True) / 31
    ours = rounded @ ((weight / steps).round() * steps).T + up.weight.detach().double() @ shift
    theirs = y @ up.weight.detach().double().T
    restored = rounded * scale + shift
    noise = [
        float((a - b).square().sum() / (b - b.mean(0)).square().sum())
        for a, b in ((ours, theirs), (restored, y))
    ]
    told = error.sqnr(EquivalentTransform(scale, shift))
    found = told.clipped if clips else told.all_values
    assert found == pytest.approx(-10 * math.log10(sum(noise) / 2), abs=1e-3)


def test_more_bits_lose_less(seen):
    for site, rows, _ in seen:
        found = [error_of(site, rows, bits).sqnr(NOTHING).mean for bits in (3, 4, 6, 8)]
        assert found == sorted(found)


def test_auto_never_loses_to_nothing_or_to_a_rule_it_tried(seen):
    rules = set()
    for site, rows, error in seen:
        name, transform = choose(site, rows, error)
        rules.add(name)
        found, floor = error.sqnr(transform or NOTHING), error.sqnr(NOTHING)
        assert found.is_no_worse_than(floor)
        for rival in (
            gamma_transform(site),
            smoothquant_transform(site, rows, 0.5),
            os_plus_transform(site, rows, error),
        ):
            tried = error.sqnr(rival)
            assert found.mean >= tried.mean or not tried.is_no_worse_than(floor)
    assert rules != {"none"}


def test_auto_leaves_a_norm_where_nothing_helps(monkeypatch, seen):
    """Every candidate is as good as nothing: nothing wins the tie."""
    from attar.quantization.transforms import rules as module

    monkeypatch.setattr(module, "_candidates", lambda site, rows: [("gamma", NOTHING)])
    for site, rows, error in seen:
        assert choose(site, rows, error) == ("none", None)


def test_auto_takes_nothing_that_is_worse_under_one_of_the_ranges(monkeypatch, seen):
    from attar.quantization.transforms import rules as module

    twice = EquivalentTransform.of_scale(torch.full((32,), 2.0))
    monkeypatch.setattr(module, "_candidates", lambda site, rows: [("gamma", twice)])

    class Told:
        """An error that says what it was told: 9 and 9 dB for nothing."""

        def __init__(self, *of_twice: float) -> None:
            self.of_twice = of_twice

        def sqnr(self, transform) -> SiteSqnr:
            return SiteSqnr(*(self.of_twice if transform is twice else (9.0, 9.0)))

    site, rows, _ = seen[0]
    for told, wanted in (((20.0, 8.9), "none"), ((8.9, 20.0), "none"), ((9.0, 9.1), "gamma")):
        assert choose(site, rows, Told(*told))[0] == wanted


def test_rules_help_a_model_with_outliers_and_say_by_how_much(tmp_path):
    for rule in ("smoothquant", "os_plus", "auto"):
        details = TRANSFORMS[rule](
            with_outliers(), BATCHES, transforms.settings(), transforms.context(tmp_path)
        )
        for norm in details["norms"]:
            assert norm["sqnr_after_db"] > norm["sqnr_before_db"]
            assert norm["rule"] == rule or rule == "auto"


def test_nothing_is_moved_without_a_rule(tmp_path):
    model = with_outliers()
    before = copy.deepcopy(model.state_dict())
    details = TRANSFORMS["none"](
        model, BATCHES, transforms.settings(), transforms.context(tmp_path)
    )
    assert details == {}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_that_is_not_finite_is_refused(tmp_path):
    model = with_outliers()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.LayerNorm.bias[0] = torch.inf
    with pytest.raises(ModelError, match=r"NaN or infinite.*1 of 7.*layer\.1\.output"):
        TRANSFORMS["auto"](model, BATCHES, transforms.settings(), transforms.context(tmp_path))


def test_a_request_to_stop_is_heard_before_anything_is_changed(tmp_path):
    from dataclasses import replace

    context = replace(transforms.context(tmp_path), should_stop=lambda: True)
    with pytest.raises(StoppedError, match="looking at what can be transformed has no checkpoint"):
        TRANSFORMS["gamma"](with_outliers(), BATCHES, transforms.settings(), context)
