"""Laws of the terms on hidden states that hold whatever their distance: pairs, stacks, widths."""

from __future__ import annotations

import pytest
import torch

from attar.errors import ModelError
from attar.losses.config import EmbeddingMse, Eofd, HiddenCosine, HiddenMse, LossConfig
from attar.losses.targets import Outputs, Targets, count_units
from attar.losses.term import Pair, Shape, StackShape
from attar.losses.total import TotalLoss

B, T = 3, 5
KINDS: tuple[LossConfig, ...] = (HiddenMse(), HiddenCosine(), EmbeddingMse(), Eofd())
every_kind = pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)


def shape(width: int, *stacks: str, blocks: int = 2) -> Shape:
    return dict.fromkeys(stacks or ("encoder",), StackShape(blocks, width, 2, width // 2))


def outputs(seed: int, of: Shape) -> Outputs:
    g = torch.Generator().manual_seed(seed)
    states = {
        name: [torch.randn(B, T, stack.hidden_size, generator=g) for _ in range(3)]
        for name, stack in of.items()
    }
    return Outputs(torch.zeros(B, 2), states)


def value(loss: TotalLoss, student: Outputs, teacher: Outputs) -> torch.Tensor:
    masks = {stack: torch.ones(B, T, dtype=torch.int64) for stack in student.hidden}
    targets = Targets(torch.zeros(B, dtype=torch.int64), masks)
    loss.look_at([teacher], [targets])
    counts = count_units(targets.labels, dict.fromkeys(masks, B * T))
    return loss(student, teacher, targets, counts).total


@every_kind
def test_a_states_loss_is_zero_at_equality_and_positive_otherwise(config: LossConfig) -> None:
    same = shape(8)
    loss = TotalLoss([config], "classification", Pair(same, same))
    assert not list(loss.parameters())
    assert value(loss, outputs(0, same), outputs(0, same)) == 0
    assert value(loss, outputs(1, same), outputs(0, same)) > 0


@every_kind
def test_a_states_loss_of_two_stacks_is_the_mean_of_both(config: LossConfig) -> None:
    both, one = shape(8, "encoder", "decoder"), shape(8)
    pair = outputs(0, both), outputs(1, both)
    total = value(TotalLoss([config], "classification", Pair(both, both)), *pair)
    single = TotalLoss([config], "classification", Pair(one, one))
    alone = [
        value(single, *(Outputs(of.logits, {"encoder": of.hidden[stack]}) for of in pair))
        for stack in both
    ]
    torch.testing.assert_close(total, torch.stack(alone).mean())


@every_kind
@pytest.mark.parametrize("narrow", [4, 12])
def test_a_projection_between_widths_learns_to_bring_them_together(
    config: LossConfig, narrow: int
) -> None:
    """The student's states are fixed: only the projection can lower the loss."""
    own, other = shape(narrow), shape(8)
    loss = TotalLoss([config], "classification", Pair(own, other, seed=3))
    student, teacher = outputs(0, own), outputs(1, other)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    values: list[float] = []
    for _ in range(60):
        found = value(loss, student, teacher)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        values.append(float(found.detach()))
    assert values[-1] < 0.8 * values[0]


@every_kind
def test_a_projection_passes_the_gradient_on_to_the_student(config: LossConfig) -> None:
    own, other = shape(4), shape(8)
    student, teacher = outputs(0, own), outputs(1, other)
    for state in student.hidden["encoder"]:
        state.requires_grad_()
    value(TotalLoss([config], "classification", Pair(own, other)), student, teacher).backward()
    touched = [state.grad is not None for state in student.hidden["encoder"]]
    assert touched == ([True, False, False] if config.kind == "embedding_mse" else [True] * 3)


@every_kind
def test_projections_come_from_the_seed_alone(config: LossConfig) -> None:
    def weights(seed: int) -> torch.Tensor:
        loss = TotalLoss([config], "classification", Pair(shape(4), shape(8), seed=seed))
        return torch.cat([parameter.flatten() for parameter in loss.parameters()]).detach()

    torch.manual_seed(1)
    first = weights(0)
    torch.manual_seed(2)
    assert torch.equal(first, weights(0)) and not torch.equal(first, weights(1))


@every_kind
def test_stacks_that_differ_are_refused_by_the_kinds_name(config: LossConfig) -> None:
    pair = Pair(shape(8), shape(8, "encoder", "decoder"))
    with pytest.raises(ModelError, match=rf"^{config.kind}: .*'encoder'.*'decoder'"):
        TotalLoss([config], "classification", pair)


@pytest.mark.parametrize("kind", [HiddenMse, HiddenCosine, Eofd])
def test_layer_maps_that_cannot_be_are_refused_by_the_kinds_name(kind: type) -> None:
    config = kind(layer_map={1: 9})
    with pytest.raises(ModelError, match=rf"^{config.kind}: .*1 → 9.*0\.\.2"):
        TotalLoss([config], "classification", Pair(shape(8), shape(8)))
    with pytest.raises(ModelError, match=rf"^{config.kind}: .*3 and 2 blocks"):
        TotalLoss([kind()], "classification", Pair(shape(8), shape(8, blocks=3)))


def test_embedding_mse_is_hidden_mse_of_state_zero() -> None:
    same = shape(8)
    found = [
        value(TotalLoss([config], "classification", Pair(same, same)), *map_outputs)
        for config, map_outputs in (
            (EmbeddingMse(), (outputs(0, same), outputs(1, same))),
            (HiddenMse(layer_map={0: 0}), (outputs(0, same), outputs(1, same))),
        )
    ]
    assert found[0] == found[1] > 0
