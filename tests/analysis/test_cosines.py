"""Cosines of sites and of norms: they rise with bits, and γ is what migration takes away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attar.analysis.studies import gamma_cosine as module
from attar.numerics.agreement import CosineSum, cosine
from attar.numerics.magnitudes import Peaks
from simulated import run_quantize
from studied import layer_norms, run_study


def test_every_site_is_nearer_to_itself_in_more_bits(tmp_path: Path) -> None:
    by_bits = [run_study(tmp_path, "site_cosine", bits=bits) for bits in (2, 4, 8)]
    few, some, many = (found.metrics["sites"] for found in by_bits)
    assert set(few) == set(some) == set(many)
    assert len(few) == 2 * 8 + 1 - 1 + 2
    for site in few:
        assert few[site] < some[site] < many[site] <= 1
    for found in by_bits:
        cosines = [row["cosine"] for row in found.rows]
        assert cosines == sorted(cosines)
        assert found.facts["num_problematic"] == sum(value < 0.99 for value in cosines)


def test_decibels_of_a_site_are_those_the_quantize_step_reports(tmp_path: Path) -> None:
    found = run_study(tmp_path, "site_cosine", bits=6)
    step = run_quantize(tmp_path, activation_bits=6)
    reported = {name: site["sqnr_db"] for name, site in step.metrics["sites"].items()}
    assert {row["site"]: row["sqnr_db"] for row in found.rows} == pytest.approx(reported)


def test_the_cosine_of_a_stream_is_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 90, generator=generator)
    total = CosineSum()
    for one, other in zip(x.split(25), y.split(25), strict=True):
        total.add(one, other)
    assert total.cosine == pytest.approx(cosine(x, y), rel=1e-12)


def test_taking_out_a_large_gamma_gains_and_a_flat_one_changes_nothing(tmp_path: Path) -> None:
    def large(model: Any) -> None:
        flat(model)
        for norm in layer_norms(model)[1::2]:
            norm.weight[::8] = 6.0

    def flat(model: Any) -> None:
        for norm in layer_norms(model):
            norm.weight.fill_(1.0)
            norm.bias.zero_()

    (tmp_path / "large").mkdir()
    rows = run_study(tmp_path / "large", "gamma_cosine", change=large, bits=4).rows
    for row in rows:
        if row["kind"] == "mha_norm":
            assert row["gain"] > 0.005
            assert row["restored"] > row["cosine"]
            assert row["largest_gamma"] == 6
        else:
            assert row["gain"] == 0
            assert row["restored"] == row["cosine"]


def test_a_channel_with_hardly_any_gamma_is_left_as_it_is(tmp_path: Path) -> None:
    def silent(model: Any) -> None:
        for norm in layer_norms(model):
            norm.weight[3] = 1e-9

    found = run_study(tmp_path, "gamma_cosine", change=silent)
    assert {row["num_tiny_gamma"] for row in found.rows} == {1}
    assert min(row["migrated"] for row in found.rows) > 0.9


def test_the_largest_values_are_those_of_real_tokens_dimension_by_dimension(
    tmp_path: Path,
) -> None:
    """Every word is ±1 behind the first norm's x̂; padding would stand out in dimension 5."""

    def by_hand(model: Any) -> None:
        embeddings = model.bert.embeddings
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
        words = embeddings.word_embeddings.weight
        words[:, ::2], words[:, 1::2] = 1.0, -1.0
        words[model.config.pad_token_id] = 0.0
        words[model.config.pad_token_id, 5] = 100.0
        gamma, beta = embeddings.LayerNorm.weight.fill_(1.0), embeddings.LayerNorm.bias.zero_()
        gamma[3], gamma[4], gamma[6], beta[8] = 5.0, -2.0, 1e-9, 0.5

    rows = run_study(tmp_path, "gamma_cosine", change=by_hand).rows
    first = rows[0]
    assert first["kind"] == "embedding"
    hidden_size = len(first["dimensions"])
    assert hidden_size == 32
    found = [tuple(each.values()) for each in first["dimensions"]]
    assert [d for d, *_ in found[:3]] == [3, 4, 8]
    expected = [(3, 5.0, 5.0, 1.0), (4, -2.0, 2.0, 1.0), (8, 1.0, 1.5, 1.5)]
    for ours, theirs in zip(found, expected, strict=False):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert found[-1] == pytest.approx((6, 1e-9, 1e-9, 1e-9), abs=1e-4)  # its factor is 1
    figures = ("largest_y", "median_y", "largest_x", "median_x")
    assert [first[name] for name in figures] == pytest.approx([5, 1, 1.5, 1], abs=1e-4)


def test_of_many_dimensions_those_are_written_down_where_y_is_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_study(tmp_path, "gamma_cosine").rows
    monkeypatch.setattr(module, "MOST_DIMENSIONS", 5)
    for row, all_of_it in zip(run_study(tmp_path, "gamma_cosine").rows, whole, strict=True):
        assert row["dimensions"] == all_of_it["dimensions"][:5]
        values = [each["y"] for each in all_of_it["dimensions"]]
        assert values == sorted(values, reverse=True)
        assert values[0] == row["largest_y"]
        assert max(each["x"] for each in all_of_it["dimensions"]) == row["largest_x"]


def test_the_largest_of_a_stream_are_those_of_the_whole() -> None:
    values = torch.randn(90, 7, generator=torch.Generator().manual_seed(0))
    found = Peaks()
    for part in values.split(25):
        found.see(part)
    assert torch.equal(found.values, values.abs().amax(dim=0))
