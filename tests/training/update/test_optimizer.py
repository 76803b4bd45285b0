"""What AdamW decays, and that its fused kernel is AdamW."""

from __future__ import annotations

from pathlib import Path

import torch

from attar.models.load import load_model
from attar.training.config import TrainStep
from attar.training.update.optimizer import build_optimizer, set_learning_rate_

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
