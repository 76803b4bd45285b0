"""Laws of relations between tokens, and the settings of MiniLM's two versions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from attar.errors import ModelError
from attar.losses.attentions import relation_divergence, relation_scores, seen_pairs
from attar.losses.config import RelationKl
from attar.losses.targets import Outputs, Targets, count_units
from attar.losses.term import Pair, StackShape
from attar.losses.total import TotalLoss, needs_of

ROUNDING = 1e-12
"""float64 sums over a few tokens."""
B, T = 3, 5
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]])
causal_or_not = pytest.mark.parametrize("is_causal", [False, True])


def vectors(seed: int, width: int = 8) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, width, generator=g, dtype=torch.float64)


def scores(seed: int, heads: int = 2) -> torch.Tensor:
    return relation_scores(vectors(seed, heads * 4), heads)


@causal_or_not
def test_the_divergence_is_zero_at_equality_and_up_to_a_constant(is_causal: bool) -> None:
    seen = seen_pairs(MASK, is_causal)
    assert relation_divergence(scores(0), scores(0), seen).abs().max() <= ROUNDING
    assert relation_divergence(scores(0) + 9, scores(0), seen).abs().max() <= ROUNDING
    assert relation_divergence(scores(1), scores(0), seen).min() > 0.01


def test_rounding_leaves_no_divergence_below_zero() -> None:
    """In float32, where the sums of nearly equal relations come out on both sides of 0."""
    g = torch.Generator().manual_seed(0)
    teacher = torch.randn(500, 1, 2, 2, generator=g) * 3
    student = teacher + 1e-4 * torch.randn(500, 1, 2, 2, generator=g)
    found = relation_divergence(student, teacher, torch.ones(500, 2, 2, dtype=torch.bool))
    assert found.min() >= 0
    assert found.max() < 1e-5


@causal_or_not
def test_what_is_not_seen_has_no_share_however_low_the_scores_that_are(is_causal: bool) -> None:
    seen = seen_pairs(MASK, is_causal)
    usual = relation_divergence(scores(1), scores(0), seen)
    low = relation_divergence(scores(1) - 1000, scores(0) - 1000, seen)
    torch.testing.assert_close(low, usual, rtol=1e-9, atol=1e-9)  # 1000 costs three digits


@causal_or_not
def test_it_is_the_kl_over_the_tokens_that_each_query_sees(is_causal: bool) -> None:
    student, teacher = scores(0), scores(1)
    expected = []
    for b in range(B):
        total = 0.0
        for t in range(T):
            keys = [s for s in range(T) if MASK[b, s] and not (is_causal and s > t)]
            if MASK[b, t]:
                log_q, log_p = (of[b, :, t, keys].log_softmax(-1) for of in (student, teacher))
                kl = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
                total += kl.mean().item()
        expected.append(total)
    found = relation_divergence(student, teacher, seen_pairs(MASK, is_causal))
    assert found.tolist() == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)


@causal_or_not
@pytest.mark.parametrize("anything", [7.0, 1e30, float("-inf"), float("nan")])
def test_what_no_query_sees_does_not_count(is_causal: bool, anything: float) -> None:
    student, teacher, seen = scores(0), scores(1), seen_pairs(MASK, is_causal)
    clean = relation_divergence(student, teacher, seen)
    dirty = torch.where(seen.unsqueeze(1), student, anything).requires_grad_()
    taught = torch.where(seen.unsqueeze(1), teacher, anything).requires_grad_()
    found = relation_divergence(dirty, taught, seen)
    found.sum().backward()
    assert torch.equal(found.detach(), clean)
    assert dirty.grad is not None and taught.grad is None
    assert dirty.grad.isfinite().all() and dirty.grad.abs().max() > 0
    assert dirty.grad[~seen.unsqueeze(1).expand_as(dirty)].abs().max() == 0


def test_relations_are_scaled_products_within_each_head() -> None:
    x = vectors(0, width=8)
    found = relation_scores(x, 2)
    for head in range(2):
        own = x[..., 4 * head : 4 * head + 4]
        torch.testing.assert_close(found[:, head], own @ own.transpose(1, 2) / 2)


def stack(heads: int, head_size: int, **more: Any) -> StackShape:
    return StackShape(3, heads * head_size, heads, head_size, **more)


def loss_of(student: StackShape, teacher: StackShape, **settings: Any) -> TotalLoss:
    pair = Pair({"encoder": student}, {"encoder": teacher})
    return TotalLoss([RelationKl(**settings)], "classification", pair)


def test_relation_heads_let_widths_and_head_counts_differ() -> None:
    relations = ("query", "key", "value")
    loss = loss_of(stack(2, 4), stack(3, 8), relations=relations, teacher_block=1, heads=4)
    logits = torch.zeros(B, 2, dtype=torch.float64)
    qkv = [tuple(vectors(10 * block + i, 24) for i in range(3)) for block in range(3)]
    own = tuple(vectors(50 + i, 8) for i in range(3))
    student = Outputs(logits, qkv={"encoder": [own]})
    targets = Targets(torch.zeros(B, dtype=torch.int64), {"encoder": MASK})
    counts = count_units(targets.labels, {"encoder": int(MASK.sum())})
    found = loss(student, Outputs(logits, qkv={"encoder": qkv}), targets, counts).total
    seen = seen_pairs(MASK, is_causal=False)
    each = [
        relation_divergence(relation_scores(s, 4), relation_scores(t, 4), seen).sum()
        for s, t in zip(own, qkv[1], strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(each).mean() / MASK.sum())


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "message"),
    [
        (stack(2, 4), stack(4, 4), {}, r'"attention".*encoder.* 2 heads.* 4; .*"query"'),
        (stack(2, 4), stack(4, 4), {"relations": ["value"]}, r"2 value heads.* 4; .*8 and 16"),
        (stack(2, 4), stack(3, 4), {"relations": ["key"], "heads": 3}, r"heads = 3 .*student's 8$"),
        (
            *(stack(4, 4, kv_heads=2), stack(4, 4)),
            {"relations": ["query", "key"]},
            r"2 key heads.* 4; .*8 and 16",
        ),
        (stack(2, 4), stack(2, 4), {"teacher_block": 3}, r"teacher_block is 3; .*0\.\.2"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_numbers(
    student: StackShape, teacher: StackShape, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match="^relation_kl: .*" + message):
        loss_of(student, teacher, **settings)


def test_only_what_the_relations_are_made_of_is_asked_for() -> None:
    first = needs_of([RelationKl()])
    assert first.scores and first.qkv
    second = needs_of([RelationKl(relations=("query", "key", "value"))])
    assert second.qkv and not second.scores
    assert not needs_of([RelationKl(relations=("attention",))]).qkv
