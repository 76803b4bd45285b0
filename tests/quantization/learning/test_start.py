"""Learning begins at the ranges that its setting names."""

from __future__ import annotations

import pytest

from attar.quantization.config import (
    AutoStep,
    LsqPlusStep,
    OmseStep,
    StepSizeStep,
    TokenWiseClippingStep,
)
from attar.quantization.learning.start import STARTS, chosen_start
from attar.quantization.method import Problem
from attar.quantization.methods import METHODS
from attar.quantization.ranges.auto import auto_ranges
from attar.quantization.ranges.extremes import mean_3sigma, minmax
from attar.quantization.ranges.omse import omse
from attar.quantization.ranges.token_wise_clipping import token_wise_clipping
from problems import TEXTS, problem_of

SETTINGS = {"model": "m", "calibration": TEXTS, "activation_bits": 4}
RULES = {
    "minmax": minmax,
    "mean_3sigma": mean_3sigma,
    "omse": omse,
    "token_wise_clipping": token_wise_clipping,
    "auto": auto_ranges,
}
STEPS = {"omse": OmseStep, "token_wise_clipping": TokenWiseClippingStep, "auto": AutoStep}
"""The settings a rule reads by itself, at their defaults."""


def ends_of(rule, config) -> dict[str, tuple[float, float]]:
    problem: Problem = problem_of(config, batches=2)[0]
    return {site.name: ends for site, ends in rule(problem).ranges.items()}


@pytest.fixture(scope="module")
def by_rule():
    """What each rule finds when it is a method of its own."""
    usual = StepSizeStep(**SETTINGS)
    return {
        name: ends_of(rule, STEPS[name](**SETTINGS) if name in STEPS else usual)
        for name, rule in RULES.items()
    }


@pytest.mark.parametrize("name", list(STARTS))
def test_a_start_is_the_rule_of_its_name(by_rule, name):
    is_for_steps = name in ("omse", "mean_3sigma")
    make = StepSizeStep if is_for_steps else LsqPlusStep
    found = ends_of(chosen_start, make(**SETTINGS, start=name))
    assert found == by_rule[name]
    assert [other for other, ends in by_rule.items() if ends == found] == [name]


def test_step_sizes_start_from_least_squared_error_as_published(by_rule):
    """Outlier Suppression, caption of table 15."""
    assert ends_of(METHODS["step_size"].ranges, StepSizeStep(**SETTINGS)) == by_rule["omse"]
