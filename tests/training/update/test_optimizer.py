"""What is decayed, that the fused kernel is AdamW, and that Adafactor is T5's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers.optimization import Adafactor

from attar.models.load import load_model
from attar.training.config import TrainStep
from attar.training.saving.state import fill_moments_, moments_of
from attar.training.update.optimizer import Schedule, build_optimizer, set_learning_rate_

CONFIG = TrainStep(model="m", data="d", weight_decay=0.1)


def test_biases_and_norms_are_not_decayed_and_everything_is_trained_once(tiny_bert: Path) -> None:
    model = load_model(tiny_bert).model
    decayed, plain = build_optimizer(model, CONFIG).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0
    assert all(
        name.endswith("bias") or "LayerNorm" in name
        for name in (names[id(parameter)] for parameter in plain["params"])
    )
    assert not any("LayerNorm" in names[id(p)] or p.ndim < 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_an_update_is_that_of_plain_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, CONFIG)
    plain = torch.optim.AdamW(
        [
            {"params": [theirs.weight], "weight_decay": 0.1},
            {"params": [theirs.bias], "weight_decay": 0.0},
        ],
        lr=0.01,
        foreach=False,
        fused=False,
    )
    set_learning_rate_(optimizer, 0.01)
    for _ in range(5):
        for model, stepper in ((ours, optimizer), (theirs, plain)):
            stepper.zero_grad()
            model(torch.ones(2, 5)).square().sum().backward()
            stepper.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def _t5_update(weights: Tensor, rows: Tensor, columns: Tensor, grad: Tensor, t: int, lr: float):
    """Adafactor of arXiv 1804.04235, algorithm 4, with T5's constants, in plain formulas."""
    decay = 1 - t**-0.8
    squares = grad.square() + 1e-30
    rows = decay * rows + (1 - decay) * squares.mean(dim=1)
    columns = decay * columns + (1 - decay) * squares.mean(dim=0)
    update = grad / (rows[:, None] * columns[None] / rows.mean()).sqrt()
    update = update / max(1.0, float(update.square().mean().sqrt()))
    size = max(1e-3, float(weights.square().mean().sqrt()))
    return weights - lr * size * update, rows, columns


def test_adafactor_is_the_published_one_and_goes_on_from_its_moments() -> None:
    torch.manual_seed(0)
    config = TrainStep(model="m", data="d", optimizer="adafactor", weight_decay=0)
    model = torch.nn.Linear(5, 3, dtype=torch.float64)
    weights, rows, columns = model.weight.detach().clone(), torch.zeros(3), torch.zeros(5)
    rows, columns = rows.double(), columns.double()
    optimizer = build_optimizer(model, config)
    for t in range(1, 7):
        if t == 4:  # as a resumed run does
            moments = {
                name: tensor.clone() for name, tensor in moments_of(model, optimizer).items()
            }
            optimizer = build_optimizer(model, config)
            fill_moments_(model, optimizer, moments)
        set_learning_rate_(optimizer, 0.1)
        optimizer.zero_grad()
        model(torch.randn(2, 5, dtype=torch.float64)).square().sum().backward()
        assert model.weight.grad is not None
        weights, rows, columns = _t5_update(weights, rows, columns, model.weight.grad, t, 0.1)
        optimizer.step()
        torch.testing.assert_close(model.weight.detach(), weights, rtol=1e-12, atol=0)


def test_adafactors_relative_step_is_t5s_schedule() -> None:
    rate = Schedule("constant_inverse_sqrt", 0.01, 10**6, 10_000)
    for t in (1, 9_999, 10_000, 10_001, 524_288):
        group = {"relative_step": True, "warmup_init": False, "scale_parameter": False, "lr": None}
        assert rate(t - 1) == pytest.approx(Adafactor._get_lr(group, {"step": t}), rel=1e-12)


def test_adams_settings_are_not_for_adafactor() -> None:
    with pytest.raises(ValidationError, match="adam_beta2 are settings of AdamW"):
        TrainStep(model="m", data="d", optimizer="adafactor", adam_beta2=0.99)
    step = TrainStep.model_validate({"model": "m", "data": "d", "max_grad_norm": False})
    assert step.max_grad_norm is None
