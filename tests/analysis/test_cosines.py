"""Cosines of sites and of norms: they rise with bits, and γ is what migration takes away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attar.numerics.agreement import CosineSum, cosine
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
