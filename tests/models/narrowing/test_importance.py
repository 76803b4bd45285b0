"""Importance: what it measures, on which tokens, and that it finds what matters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.models.config import ChangedModel
from attar.models.narrowing.choice import best
from attar.models.narrowing.importance import importance_of, spread_ratios
from attar.models.narrowing.narrow import narrowed
from attar.models.narrowing.parts import parts_of
from attar.models.structure.anatomy import anatomy_of


def seen_by(model: Any, fqn: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a module reads at the real tokens, (N, …)."""
    caught: list[torch.Tensor] = []
    handle = model.get_submodule(fqn).register_forward_pre_hook(
        lambda _, args: caught.append(args[0])
    )
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return caught[0][batch["attention_mask"].bool()].double()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5_gated"])
@torch.no_grad()
def test_importance_is_activation_times_weight_over_real_tokens(family: str) -> None:
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    block = anatomy_of(model).blocks[1]
    found = importance_of(parts_of(model), [batch])
    a = seen_by(model, block.ffn.down.fqn, batch)
    for j in (0, 20, 47):
        expected = a[:, j].abs().mean() * block.ffn.down.weight[:, j].double().norm()
        assert float(found.neurons[block.ffn.fqn][j]) == pytest.approx(float(expected), rel=1e-6)
    c = seen_by(model, block.attention.out.fqn, batch)
    size = block.attention.head_size
    for h in range(4):
        its = slice(h * size, (h + 1) * size)
        out = block.attention.out.weight[:, its].double().norm()
        expected = c[:, its].norm(dim=1).mean() * out
        head = float(found.heads[block.attention.fqn][h])
        assert head == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_batches_and_padding_leave_no_trace(family: str) -> None:
    """One batch of three texts, or three of one text without padding."""
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    alone = [
        {name: tensor[i : i + 1, :length] for name, tensor in batch.items()}
        for i, length in enumerate(lengths)
    ]
    together, apart = (importance_of(parts_of(model), b) for b in ([batch], alone))
    near = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(together.hidden, apart.hidden, **near)
    for kind in ("neurons", "heads", "qk_channels", "vo_channels", "spaces"):
        for fqn, values in getattr(together, kind).items():
            torch.testing.assert_close(values, getattr(apart, kind)[fqn], **near)


@torch.no_grad()
def test_hidden_dimensions_add_up_over_norms() -> None:
    model, batch = tiny.tiny_model("bert"), tiny.tiny_batch()
    norms = parts_of(model).norms
    expected = torch.zeros(32, dtype=torch.float64)
    for norm in norms:
        caught: list[torch.Tensor] = []
        handle = norm.module.register_forward_hook(lambda _, __, output, c=caught: c.append(output))
        model(**batch)
        handle.remove()
        expected += caught[0][batch["attention_mask"].bool()].double().abs().mean(dim=0)
    assert len(norms) == 5
    torch.testing.assert_close(importance_of(parts_of(model), [batch]).hidden, expected)


def test_no_batch_at_all_is_refused() -> None:
    with pytest.raises(ModelError, match="at least one batch"):
        importance_of(parts_of(tiny.tiny_model("bert")), [])


def test_watching_leaves_the_model_as_it_was() -> None:
    model = tiny.tiny_model("bert").train()
    importance_of(parts_of(model), [tiny.tiny_batch()])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_best_units_rise_and_of_equals_the_first_stay() -> None:
    assert best(torch.tensor([1.0, 5.0, 1.0, 3.0]), 2).tolist() == [1, 3]
    assert best(torch.ones(5), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("texts", [True, False])
@torch.no_grad()
def test_what_is_important_stays_nearer_to_the_model_than_what_is_not(texts: bool) -> None:
    """Neurons of very different size: keeping the best beats keeping the worst."""
    model, batch = tiny.tiny_model("bert"), tiny.tiny_batch()
    for block in anatomy_of(model).blocks:
        block.ffn.down.weight.mul_(torch.logspace(-1, 1, 48))
    reference = ChangedModel.model_validate({"from": "big", "intermediate_size": 24})
    kept = narrowed(model, reference, [batch] if texts else None)
    for block in anatomy_of(model).blocks:
        block.ffn.down.weight[:, 24:] = 0  # the worst stay
    wanted = tiny.tiny_model("bert")
    for block in anatomy_of(wanted).blocks:
        block.ffn.down.weight.mul_(torch.logspace(-1, 1, 48))
    exact, near, far = (m(**batch).logits for m in (wanted, kept, model))
    assert (near - exact).norm() < 0.5 * (far - exact).norm()


@torch.no_grad()
def test_a_norm_is_told_how_its_spread_shrank() -> None:
    model = tiny.tiny_model("llama")
    parts, kept = parts_of(model), torch.arange(16)
    batch = tiny.tiny_batch()
    norm = parts.norms[0]
    caught: list[torch.Tensor] = []
    handle = norm.module.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    model(**batch)
    handle.remove()
    x = caught[0][batch["attention_mask"].bool()].double()
    spread = [(part.pow(2).mean(dim=1) + norm.epsilon).sqrt() for part in (x[:, :16], x)]
    expected = float((spread[0] / spread[1]).mean())
    assert spread_ratios(parts, [norm], kept, [batch])[norm.fqn] == pytest.approx(expected)
