"""Laws of the policy gradient, on all 27 texts of three tokens over a vocabulary of three."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from attar.losses.config import PolicyGradient
from attar.losses.policy_gradient import PolicyGradientTerm, returns, sampled_tokens, surrogate
from attar.losses.targets import Outputs, SampledTokens, Targets, count_units
from attar.losses.total import TotalLoss

EXACT = 1e-12
"""float64 sums of 27 texts in another order."""
V, S = 3, 3
TEXTS = torch.tensor(list(product(range(V), repeat=S)))
FREE: dict[str, Any] = {"clip": 0, "reward_clip": 0, "length_normalized": False}
"""What makes the estimate one of another quantity."""


def table(seed: int) -> Tensor:
    """A language model: logits of the next token behind each of the 13 beginnings of a text."""
    g = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(1 + V + V**2, V, generator=g, dtype=torch.float64)


def logits_of(model: Tensor) -> Tensor:
    """Of every place of every text, (27, S, V)."""
    beginnings = [torch.zeros(27, dtype=torch.int64), 1 + TEXTS[:, 0]]
    beginnings.append(1 + V + V * TEXTS[:, 0] + TEXTS[:, 1])
    return model[torch.stack(beginnings, dim=1)]


def log_probabilities(model: Tensor) -> Tensor:
    """Of every token of every text, (27, S)."""
    log_p = functional.log_softmax(logits_of(model), dim=-1)
    return log_p.gather(-1, TEXTS[..., None])[..., 0]


def exact(student: Tensor, teacher: Tensor) -> tuple[float, Tensor]:
    """KL(student‖teacher) and its gradient, by autograd through the sum over all texts."""
    leaf = student.clone().requires_grad_()
    log_q, log_p = log_probabilities(leaf).sum(dim=1), log_probabilities(teacher).sum(dim=1)
    total = (log_q.exp() * (log_q - log_p)).sum()
    total.backward()
    assert leaf.grad is not None
    return total.item(), leaf.grad


def expected(student: Tensor, teacher: Tensor, config: PolicyGradient) -> tuple[float, Tensor]:
    """The estimate of one text and its gradient, in the mean over all that can be sampled."""
    log_q, log_p = log_probabilities(student), log_probabilities(teacher)
    log_mixed = (config.mix * log_p.exp() + (1 - config.mix) * log_q.exp()).log()
    every = torch.ones_like(TEXTS, dtype=torch.bool)
    found = {"log_q": log_q, "log_p": log_p, "log_sampled": log_mixed}
    tokens = sampled_tokens(config, TEXTS, every, **found)
    flat = SampledTokens(*(x.flatten() for x in vars(tokens).values()))
    leaf = student.clone().requires_grad_()
    term = PolicyGradientTerm(config, "causal_lm", None)
    given = logits_of(leaf).flatten(0, 1), logits_of(teacher).flatten(0, 1)
    values = term.rows(*given, flat).view(27, S).sum(dim=1)
    total = (log_mixed.sum(dim=1).exp() * values).sum()
    total.backward()
    assert leaf.grad is not None
    return total.item(), leaf.grad


@pytest.mark.parametrize("single_step", [False, True])
@pytest.mark.parametrize(
    ("mix", "importance"), [(0, "token"), (0, "product"), (0.2, "product"), (0.7, "product")]
)
def test_in_the_mean_the_estimate_is_the_reverse_kl_and_has_its_gradient(
    mix: float, importance: Any, single_step: bool
) -> None:
    config = PolicyGradient(mix=mix, importance=importance, single_step=single_step, **FREE)
    for seed in range(3):
        student, teacher = table(seed), table(100 + seed)
        value, wanted = exact(student, teacher)
        estimate, found = expected(student, teacher, config)
        assert wanted.norm() > 0.1
        assert (found - wanted).norm() < EXACT * wanted.norm()
        assert estimate == pytest.approx(value, rel=EXACT)


def test_the_ratio_of_each_token_alone_has_a_bias_that_is_smaller_than_without_ratios() -> None:
    student, teacher = table(0), table(100)
    _, wanted = exact(student, teacher)
    _, paper = expected(student, teacher, PolicyGradient(mix=0.2, **FREE))
    error = (paper - wanted).norm() / wanted.norm()
    # sampled from the mixture as if it were the student's own text
    log_q, log_p = log_probabilities(student), log_probabilities(teacher)
    mixed = (0.2 * log_p.exp() + 0.8 * log_q.exp()).prod(dim=1)
    leaf = student.clone().requires_grad_()
    rest = returns(
        log_p - log_q, torch.ones_like(TEXTS) > 0, from_next=False, length_normalized=False
    )
    (mixed * -(rest * log_probabilities(leaf)).sum(dim=1)).sum().backward()
    assert leaf.grad is not None
    without = (leaf.grad - wanted).norm() / wanted.norm()
    assert 1e-3 < error < without


def test_a_student_that_is_the_teacher_has_no_gradient_on_any_text() -> None:
    model = table(0)
    log_q = log_probabilities(model)
    every = torch.ones_like(TEXTS) > 0
    found = {"log_q": log_q, "log_p": log_q, "log_sampled": log_q}
    tokens = sampled_tokens(PolicyGradient(), TEXTS, every, **found)
    leaf = model.clone().requires_grad_()
    loss = TotalLoss([PolicyGradient()], "causal_lm")
    targets = Targets(TEXTS, {"decoder": torch.ones_like(TEXTS)}, tokens)
    counts = count_units(TEXTS, {"decoder": TEXTS.numel()})
    loss(Outputs(logits_of(leaf)), Outputs(logits_of(model)), targets, counts).total.backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() < EXACT


def test_returns_are_sums_of_what_follows_over_its_length() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0, 9.0], [3.0, 5.0, 7.0, 11.0]], dtype=torch.float64)
    sampled = torch.tensor([[True, True, True, False], [True] * 4])
    settings: Any = {"from_next": True, "length_normalized": True}
    found = returns(rewards, sampled, **settings)
    assert found.tolist() == [[4.0, 6.0, 0.0, 0.0], [23 / 3, 9.0, 11.0, 0.0]]
    own = returns(rewards, sampled, from_next=False, length_normalized=True)
    assert own.tolist() == [[3.0, 4.0, 6.0, 0.0], [6.5, 23 / 3, 9.0, 11.0]]
    ratios = torch.tensor([[9.0, 0.5, 2.0, 9.0], [9.0, 1.0, 1.0, 0.5]], dtype=torch.float64)
    plain = returns(rewards, sampled, ratios, from_next=True, length_normalized=False)
    assert plain.tolist() == [[0.5 * (2 + 2 * 6), 12.0, 0.0, 0.0], [17.5, 12.5, 5.5, 0.0]]


def test_no_gradient_passes_through_the_advantage() -> None:
    log_q = torch.tensor([[-1.0, -2.0, -0.5]], requires_grad=True)
    found = {"log_q": log_q, "log_p": torch.full_like(log_q, -1.0), "log_sampled": log_q.detach()}
    every = torch.ones(1, 3, dtype=torch.bool)
    for importance in ("token", "product"):
        config = PolicyGradient(importance=importance)
        assert not sampled_tokens(config, every, every, **found).advantages.requires_grad
    tokens = sampled_tokens(PolicyGradient(), every, every, **found)
    surrogate(log_q, tokens, 0.0).sum().backward()
    assert log_q.grad is not None
    assert torch.equal(log_q.grad, -tokens.advantages)


def test_rewards_are_scaled_and_then_clipped() -> None:
    log_p, log_q = torch.tensor([[0.0, -3.0, -9.0]]), torch.tensor([[0.0, -2.0, -1.0]])
    every = torch.ones(1, 3, dtype=torch.bool)
    config = PolicyGradient(
        reward_scale=2, reward_clip=5, single_step=False, length_normalized=False
    )
    tokens = sampled_tokens(config, every, every, log_q=log_q, log_p=log_p, log_sampled=log_q)
    assert tokens.advantages.tolist() == [[0 - 2 - 5, -2 - 5, -5]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "has_gradient"),
    [
        (1.0, 1.0, True),
        (1.25, 1.0, False),
        (1.25, -1.0, True),
        (0.7, 1.0, True),
        (0.7, -1.0, False),
    ],
)
def test_a_token_gains_nothing_outside_of_the_clip(
    ratio: float, advantage: float, has_gradient: bool
) -> None:
    log_q = torch.zeros(1, requires_grad=True)
    one = torch.ones(1)
    sampled = -torch.tensor([ratio]).log()
    value = surrogate(log_q, SampledTokens(one, advantage * one, sampled, one), 0.2)
    value.sum().backward()
    assert log_q.grad is not None
    assert log_q.grad.tolist() == pytest.approx([-ratio * advantage if has_gradient else 0.0])
