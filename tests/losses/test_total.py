"""Laws of the weighted sum of terms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from attar.losses.config import CrossEntropy, ForwardKl, HiddenMse, WeightSchedule
from attar.losses.targets import Outputs, Targets, count_units
from attar.losses.term import Pair, StackShape
from attar.losses.total import TotalLoss


def outputs(seed: int, *, blocks: int = 2, classes: int = 3) -> Outputs:
    g = torch.Generator().manual_seed(seed)
    states = tuple(torch.randn(4, 6, 8, generator=g) for _ in range(blocks + 1))
    return Outputs(torch.randn(4, classes, generator=g), {"encoder": states})


TARGETS = Targets(
    torch.tensor([0, 2, -1, 1]),
    {"encoder": torch.tensor([[1] * n + [0] * (6 - n) for n in (6, 3, 1, 4)])},
)
COUNTS = count_units(TARGETS.labels, {"encoder": 14})
SHAPE = {"encoder": StackShape(num_blocks=2, hidden_size=8, heads=2, head_size=4)}
PAIR = Pair(SHAPE, SHAPE)


def test_the_total_is_the_weighted_sum_of_the_terms_it_reports() -> None:
    loss = TotalLoss(
        [CrossEntropy(weight=0.3), ForwardKl(weight=2.0), HiddenMse(weight=0.5)],
        "classification",
        PAIR,
    )
    values = loss(outputs(0), outputs(1), TARGETS, COUNTS)
    terms = values.terms
    expected = 0.3 * terms["cross_entropy"] + 2 * terms["forward_kl"] + 0.5 * terms["hidden_mse"]
    torch.testing.assert_close(values.total, expected)
    torch.testing.assert_close(values.examples.sum(), values.total)


def test_a_scheduled_weight_moves_in_a_line_and_stays() -> None:
    fading = WeightSchedule.model_validate({"from": 2.0, "to": 0.5, "over": 0.5})
    loss = TotalLoss([CrossEntropy(), ForwardKl(weight=fading)], "classification")
    plain = TotalLoss([CrossEntropy(), ForwardKl()], "classification")
    parts = plain(outputs(0), outputs(1), TARGETS, COUNTS).terms
    for progress, weight in ((0.0, 2.0), (0.25, 1.25), (0.5, 0.5), (0.99, 0.5)):
        values = loss(outputs(0), outputs(1), TARGETS, COUNTS, progress)
        expected = parts["cross_entropy"] + weight * parts["forward_kl"]
        torch.testing.assert_close(values.total, expected)
        assert values.facts == {"forward_kl.weight": pytest.approx(weight)}
        assert values.terms == parts  # what is logged is the term, not its weight


@pytest.mark.parametrize(
    "weight", [-1.0, {"from": 1.0}, {"from": -1.0, "to": 0.0}, {"from": 1, "to": 0, "over": 1.5}]
)
def test_weights_that_cannot_be_are_refused(weight: Any) -> None:
    with pytest.raises(ValidationError):
        ForwardKl.model_validate({"weight": weight})


def test_each_term_is_a_mean_over_its_own_unit() -> None:
    student, teacher = outputs(0), outputs(1)
    loss = TotalLoss([CrossEntropy(), HiddenMse(layer_map={0: 0})], "classification", PAIR)
    terms = loss(student, teacher, TARGETS, COUNTS).terms
    gold = torch.nn.functional.cross_entropy(student.logits, TARGETS.labels, ignore_index=-1)
    torch.testing.assert_close(terms["cross_entropy"], gold)
    real = TARGETS.masks["encoder"].bool()
    squares = (student.hidden["encoder"][0] - teacher.hidden["encoder"][0])[real].square()
    torch.testing.assert_close(terms["hidden_mse"], squares.mean())


def test_two_terms_of_a_kind_keep_names_of_their_own() -> None:
    loss = TotalLoss([ForwardKl(temperature=1), ForwardKl(temperature=4)], "classification")
    assert list(loss.terms) == ["forward_kl", "forward_kl_2"]


def test_a_loss_says_what_it_needs() -> None:
    alone = TotalLoss([CrossEntropy()], "classification")
    assert not alone.needs.teacher and not alone.needs.hidden
    states = TotalLoss([HiddenMse()], "classification", PAIR).needs
    assert states.teacher and states.hidden and not states.teacher_logits
    assert TotalLoss([ForwardKl()], "classification").needs.teacher_logits


def test_a_score_is_compared_by_its_square() -> None:
    student, teacher = (Outputs(torch.tensor([[v]])) for v in (2.0, 5.0))
    targets = Targets(torch.tensor([1.0]), {"encoder": torch.ones(1, 2, dtype=torch.int64)})
    values = TotalLoss([CrossEntropy(), ForwardKl(temperature=9)], "regression")(
        student, teacher, targets, count_units(targets.labels, {"encoder": 2})
    )
    assert values.terms == {"cross_entropy": pytest.approx(1.0), "forward_kl": pytest.approx(9.0)}


def test_values_are_in_the_order_of_the_recipe() -> None:
    for terms in ([HiddenMse(), CrossEntropy()], [CrossEntropy(), HiddenMse(), ForwardKl()]):
        loss = TotalLoss(terms, "classification", PAIR)
        values = loss(outputs(0), outputs(1), TARGETS, COUNTS)
        assert list(values.terms) == [term.kind for term in terms]
