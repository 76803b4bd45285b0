"""The objective of a student and its teacher, made of their shapes alone.

Whatever a loss cannot compare (depths, widths, head counts, stacks) is refused here, before a
forward pass; models on the meta device will do, so a plan can ask as well as a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from attar.losses.config import LossConfig
from attar.losses.states import MappedStates
from attar.losses.term import Pair
from attar.losses.total import TotalLoss, needs_of
from attar.seeds import derive_seed
from attar.training.forward import shape_of


def loss_of(
    losses: Sequence[LossConfig],
    objective: str,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    seed: int,
) -> TotalLoss:
    """The losses of a step, between these two models.

    Args:
        objective: of the data.
        seed: where the weights of learned projections come from.
    Raises:
        ModelError: a loss cannot compare the two.
    """
    pair = None
    if teacher is not None and needs_of(losses).inside:
        pair = Pair(shape_of(student), shape_of(teacher), derive_seed(seed, "projections"))
    return TotalLoss(losses, objective, pair)


def states_of(loss: TotalLoss) -> Mapping[str, tuple[int, ...]]:
    """Stack → the teacher's hidden states that a loss compares with."""
    found: dict[str, set[int]] = {}
    for module in loss.modules():
        if isinstance(module, MappedStates):
            for stack, layer_map in module.maps.items():
                found.setdefault(stack, set()).update(layer_map.values())
    return {stack: tuple(sorted(states)) for stack, states in found.items()}
