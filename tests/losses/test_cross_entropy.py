"""Laws of the loss against the gold label."""

from __future__ import annotations

import torch

from attar.losses.config import CrossEntropy
from attar.losses.predictions import cross_entropy, squared_error
from attar.losses.targets import Outputs, Targets, count_units
from attar.losses.term import Pair, StackShape
from attar.losses.total import TotalLoss


def test_cross_entropy_is_zero_where_the_gold_class_is_certain() -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 100.0]], dtype=torch.float64)
    assert cross_entropy(logits, torch.tensor([0, 1])).max() <= 1e-12
    assert cross_entropy(logits, torch.tensor([1, 0])).min() > 99


def test_an_unlabelled_example_adds_nothing_and_sends_no_gradient() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = cross_entropy(logits, torch.tensor([1, -1, 2]))
    loss.sum().backward()
    assert loss[1] == 0 and loss[0] > 0
    assert logits.grad is not None and logits.grad[1].abs().max() == 0
    assert logits.grad[0].abs().max() > 0


def test_a_score_that_is_missing_adds_nothing_and_sends_no_gradient() -> None:
    logits = torch.tensor([[1.0], [2.0]], requires_grad=True)
    loss = squared_error(logits, torch.tensor([3.0, float("nan")]))
    loss.sum().backward()
    assert loss.tolist() == [4.0, 0.0]
    assert logits.grad is not None and logits.grad.tolist() == [[-4.0], [0.0]]


def test_a_batch_without_a_label_has_no_loss() -> None:
    shape = {"encoder": StackShape(num_blocks=2, hidden_size=8, heads=2, head_size=4)}
    loss = TotalLoss([CrossEntropy()], "classification", Pair(shape, shape))
    targets = Targets(torch.full((3,), -1), {"encoder": torch.ones(3, 2, dtype=torch.int64)})
    counts = count_units(targets.labels, {"encoder": 6})
    assert loss(Outputs(torch.randn(3, 2)), None, targets, counts).total == 0


def test_units_count_what_is_there() -> None:
    tokens = {"encoder": 17}
    classes = count_units(torch.tensor([0, -1, 1]), tokens)
    assert classes == {"prediction": 3, "labelled": 2, "encoder": 17}
    words = count_units(torch.tensor([[0, -1, 1], [4, -1, -1]]), tokens)
    assert words == {"prediction": 3, "labelled": 3, "encoder": 17}
    assert count_units(torch.tensor([-1]), tokens)["labelled"] == 0
    assert count_units(torch.tensor([0.5, float("nan")]), tokens)["labelled"] == 1
