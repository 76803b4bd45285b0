"""Class weights, the focal factor, and several labels for a text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from attar.errors import ModelError, UsageError
from attar.losses.config import CrossEntropy, ForwardKl, Jsd, ReverseKl, SoftCrossEntropy
from attar.losses.predictions import (
    CrossEntropyTerm,
    DivergenceTerm,
    binary_cross_entropy,
    cross_entropy,
    two_sided,
    weighed_cross_entropy,
)
from attar.numerics.classification import balanced_weights

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 3, 1, -1, 2, 2])
SETS = torch.tensor(
    [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [-1] * 4, [0, 1, 0, 0], [0, 0, 0, 1]]
)


def test_plain_settings_are_plain_cross_entropy() -> None:
    ones = torch.ones(4, dtype=torch.float64)
    plain = cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(weighed_cross_entropy(LOGITS, LABELS), plain)
    torch.testing.assert_close(weighed_cross_entropy(LOGITS, LABELS, ones), plain)
    assert plain[3] == 0


def test_weights_are_those_of_torch_and_focal_that_of_its_paper() -> None:
    weights = torch.tensor([1.0, 2.0, 0.5, 4.0], dtype=torch.float64)
    found = weighed_cross_entropy(LOGITS, LABELS, weights)
    theirs = functional.cross_entropy(
        LOGITS, LABELS, weight=weights, ignore_index=-1, reduction="none"
    )
    torch.testing.assert_close(found, theirs)
    p = LOGITS.softmax(dim=-1).gather(1, LABELS.clamp(min=0)[:, None])[:, 0]
    focal = weighed_cross_entropy(LOGITS, LABELS, None, 2.0)
    torch.testing.assert_close(focal, (1 - p) ** 2 * cross_entropy(LOGITS, LABELS))


def test_labels_by_themselves_are_torchs_binary_cross_entropy() -> None:
    weights = torch.tensor([1.0, 2.0, 0.5, 4.0], dtype=torch.float64)
    known = SETS >= 0
    theirs = functional.binary_cross_entropy_with_logits(
        LOGITS, SETS.clamp(min=0).double(), pos_weight=weights, reduction="none"
    )
    found = binary_cross_entropy(LOGITS, SETS, weights)
    torch.testing.assert_close(found, torch.where(known, theirs, 0).mean(dim=-1))
    assert found[3] == 0


@pytest.mark.parametrize("focal", [0.5, 2.0])
def test_what_is_certain_and_what_is_unknown_leave_the_gradient_finite(focal: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [0.3, 0.1]], requires_grad=True)
    both = weighed_cross_entropy(logits, torch.tensor([0, -1]), None, focal).sum()
    both = both + binary_cross_entropy(logits, torch.tensor([[1, 0], [-1, -1]]), None, focal).sum()
    (gradient,) = torch.autograd.grad(both, logits)
    assert torch.isfinite(gradient).all()
    assert (gradient[1] == 0).all()


def test_balanced_weights_make_all_classes_weigh_alike() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2] + [-1])
    weights = balanced_weights(labels, 4)
    shares = [weights[c] * (labels == c).sum() for c in range(3)]
    assert shares == pytest.approx([10 / 3] * 3)
    assert weights[3] == 1
    sets = np.array([[1, 0], [0, 0], [0, 0], [1, 0], [-1, -1]])
    assert balanced_weights(sets, 2).tolist() == [1.0, 1.0]
    assert balanced_weights(sets[:3], 2).tolist() == [2.0, 1.0]


def test_a_term_finds_its_weights_by_the_classes_names() -> None:
    term = CrossEntropyTerm(CrossEntropy(class_weights={"rare": 3.0}), "classification", None)
    term.weigh(("common", "rare"), np.array([0, 0, 1]))
    logits = torch.zeros(2, 2)
    assert term.rows(logits, None, torch.tensor([0, 1])).tolist() == pytest.approx(
        [np.log(2), 3 * np.log(2)]
    )
    with pytest.raises(UsageError, match=r"names 'rare' .did you mean 'rarer'|names 'rare'"):
        term.weigh(("common", "rarer"), np.array([0, 1]))
    with pytest.raises(ModelError, match="class_weights and focal need classes"):
        CrossEntropyTerm(CrossEntropy(focal=2.0), "regression", None)


@pytest.mark.parametrize("config", [ForwardKl(), ReverseKl(), Jsd(), SoftCrossEntropy()])
def test_a_teacher_of_several_labels_is_compared_label_by_label(config) -> None:
    term = DivergenceTerm(config, "multi_label", None)
    teacher = LOGITS.flip(0)
    found = term.rows(LOGITS, teacher, SETS)
    by_label = DivergenceTerm(config, "classification", None)
    one_by_one = [
        by_label.rows(two_sided(LOGITS[:, c]), two_sided(teacher[:, c]), LABELS) for c in range(4)
    ]
    torch.testing.assert_close(found, torch.stack(one_by_one).mean(dim=0))
    if not isinstance(config, SoftCrossEntropy):
        torch.testing.assert_close(term.rows(LOGITS, LOGITS, SETS), torch.zeros(6).double())
