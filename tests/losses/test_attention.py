"""Laws of the attention loss: what counts, what it is a mean over, which blocks are compared."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from attar.errors import ModelError
from attar.losses.attentions import score_distance, seen_pairs
from attar.losses.config import AttentionMse
from attar.losses.states import resolve_layer_map
from attar.losses.targets import Outputs, Targets, count_units
from attar.losses.term import Pair, StackShape
from attar.losses.total import TotalLoss

B, H, T = 3, 2, 5
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]])
attention_map = partial(resolve_layer_map, kind="attention_mse", of_attentions=True)
causal_or_not = pytest.mark.parametrize("is_causal", [False, True])


def scores(seed: int, heads: int = H) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, heads, T, T, generator=g, dtype=torch.float64)


@causal_or_not
def test_the_distance_is_zero_at_equality_and_never_negative(is_causal: bool) -> None:
    seen = seen_pairs(MASK, is_causal)
    assert score_distance(scores(0), scores(0), seen).abs().max() == 0
    assert score_distance(scores(0), scores(1), seen).min() > 0


@causal_or_not
def test_it_is_the_mean_over_heads_and_seen_keys_of_each_real_query(is_causal: bool) -> None:
    student, teacher = scores(0), scores(1)
    expected = []
    for b in range(B):
        total = 0.0
        for t in range(T):
            keys = [s for s in range(T) if MASK[b, s] and not (is_causal and s > t)]
            if MASK[b, t]:
                total += (student - teacher)[b, :, t, keys].square().mean().item()
        expected.append(total)
    found = score_distance(student, teacher, seen_pairs(MASK, is_causal))
    assert found.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)  # float64 sums


@causal_or_not
@pytest.mark.parametrize("anything", [7.0, -1e30, float("-inf"), float("nan")])
def test_what_no_query_sees_does_not_count(is_causal: bool, anything: float) -> None:
    student, teacher, seen = scores(0), scores(1), seen_pairs(MASK, is_causal)
    clean = score_distance(student, teacher, seen)
    dirty = torch.where(seen.unsqueeze(1), student, anything).requires_grad_()
    taught = torch.where(seen.unsqueeze(1), teacher, anything).requires_grad_()
    found = score_distance(dirty, taught, seen)
    found.sum().backward()
    assert torch.equal(found.detach(), clean)
    assert dirty.grad is not None and taught.grad is None
    assert torch.equal(dirty.grad != 0, seen.unsqueeze(1).expand_as(student))


def test_attention_maps_mean_what_the_settings_say() -> None:
    assert attention_map("uniform", 3, 12) == {0: 3, 1: 7, 2: 11}
    assert attention_map("uniform", 4, 4) == {0: 0, 1: 1, 2: 2, 3: 3}
    assert attention_map("last", 3, 12) == {2: 11}
    assert attention_map({0: 5}, 3, 12) == {0: 5}


def test_attention_maps_that_cannot_be_are_refused_with_the_numbers() -> None:
    with pytest.raises(ModelError, match=r"^attention_mse: .*6 and 4 blocks"):
        attention_map("uniform", 4, 6)
    with pytest.raises(ModelError, match=r"^attention_mse: .*3 → 2.*0\.\.2.*0\.\.5"):
        attention_map({1: 2, 3: 2}, 3, 6)
    with pytest.raises(ModelError, match="no pairs"):
        attention_map({}, 3, 6)


def total(config: AttentionMse, student: torch.Tensor, teacher: torch.Tensor) -> float:
    shapes = ({"encoder": StackShape(1, 8, s.shape[1], 4)} for s in (student, teacher))
    loss = TotalLoss([config], "classification", Pair(*shapes))
    logits = torch.zeros(B, 2, dtype=torch.float64)
    given, taught = (Outputs(logits, scores={"encoder": [s]}) for s in (student, teacher))
    targets = Targets(torch.zeros(B, dtype=torch.int64), {"encoder": MASK})
    counts = count_units(targets.labels, {"encoder": int(MASK.sum())})
    return float(loss(given, taught, targets, counts).total)


def test_head_counts_that_differ_are_refused_with_the_numbers_or_compared_by_their_means() -> None:
    student, teacher = scores(0, heads=2), scores(1, heads=4)
    with pytest.raises(ModelError, match=r"^attention_mse: .*encoder.* 2 heads.* 4; .*mean"):
        total(AttentionMse(), student, teacher)
    means = (of.mean(dim=1, keepdim=True) for of in (student, teacher))
    assert total(AttentionMse(heads="mean"), student, teacher) == pytest.approx(
        total(AttentionMse(), *means)
    )
    shuffled = teacher[:, [2, 0, 3, 1]]
    assert total(AttentionMse(heads="mean"), shuffled, teacher) == pytest.approx(0, abs=1e-30)
    assert total(AttentionMse(), shuffled, teacher) > 0.1
