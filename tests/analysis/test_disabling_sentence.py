"""A sentence about damage claims a ratio where there is one, and nothing beyond."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from attar.analysis.disabling_sentence import disabling_sentence
from attar.numerics.damage import Damage, Ratio
from attar.numerics.statistics import Difference

MINUS = "\N{MINUS SIGN}"
OUTLIER = Difference(0.051, 0.012, 0.088, 408)
CLEAR = Damage(
    outlier=OUTLIER,
    null=Difference(0.01, 0.005, 0.02, 408),
    excess=Difference(0.041, 0.01, 0.07, 408),
    ratio=Ratio(5.1, 2.0, 9.0),
    as_bad=0,
    choices=10,
)


def test_a_clear_ratio_has_both_ends() -> None:
    assert disabling_sentence("zero", CLEAR, "accuracy", "8") == (
        "8 outlier dimensions set to zero cost 5.1 points (95 % interval 1.2 … 8.8); as many "
        "others 1.0 points (95 % interval 0.5 … 2.0) on average of 10 random choices; 5.1 times as "
        "much (95 % interval 2 … 9); 0 of 10 choices damage as much (p = 0.091; the smallest "
        "possible p with so few choices is 0.091)."
    )


def test_a_null_that_may_be_zero_leaves_the_ratio_open() -> None:
    null = Difference(0.001, -0.01, 0.01, 408)
    said = disabling_sentence(
        "mean", replace(CLEAR, null=null, ratio=Ratio(51.0, 2.4, inf)), "f1", "1"
    )
    assert said.startswith("1 outlier dimension set to their mean cost 5.1 points of f1 ")
    assert f"(95 % interval {MINUS}1.0 … 1.0)" in said
    open_end = "51 times as much (at least 2.4 times as much, no upper bound: the others' damage "
    assert f"{open_end}is not significantly above 0)" in said
    none = disabling_sentence(
        "zero", replace(CLEAR, null=null, ratio=Ratio(None, 24.0, inf)), "f1", "8"
    )
    assert "there is no ratio, at least 24 times as much;" in none
    never = disabling_sentence("zero", replace(CLEAR, ratio=Ratio(None, inf, inf)), "f1", "8")
    assert "there is no ratio;" in never


def test_outliers_whose_damage_is_noise_claim_no_ratio() -> None:
    small = replace(CLEAR, outlier=Difference(0.01, -0.01, 0.03, 408))
    said = disabling_sentence("zero", small, "accuracy", "8")
    assert "inside the noise, so no ratio is claimed" in said
    assert "times as much" not in said


def test_nats_are_nats() -> None:
    said = disabling_sentence("zero", CLEAR, "nll", "2 + 3")
    assert said.startswith("2 + 3 outlier dimensions set to zero cost 0.051 nats per token (95 %")
