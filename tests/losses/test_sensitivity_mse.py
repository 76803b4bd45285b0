"""Laws of hidden states weighted by what the teacher's answer depends on."""

from __future__ import annotations

import pytest
import torch

from attar.losses.config import HiddenMse, SensitivityMse
from attar.losses.sensitivity_mse import SensitivityMseTerm, SquaredGradients, gradient_weights
from attar.losses.states import StatesTerm
from attar.losses.targets import Outputs, Targets
from attar.losses.term import Pair, StackShape

D = 4
SHAPE = {
    "encoder": StackShape(
        num_blocks=1, hidden_size=D, heads=2, kv_heads=2, head_size=2, is_causal=False
    )
}
PAIR = Pair(SHAPE, SHAPE)
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])
TARGETS = Targets(torch.tensor([0, 1]), {"encoder": MASK})


def outputs(seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(2, 3, D, generator=generator).double() for _ in range(2)]
    return Outputs(torch.zeros(2, 2), {"encoder": states})


def found(seed: int = 0) -> dict[str, list[SquaredGradients]]:
    generator = torch.Generator().manual_seed(seed)
    share = float(2 / MASK.sum())
    return {
        "encoder": [SquaredGradients(torch.rand(2, D, generator=generator), share) for _ in "ab"]
    }


def value(term: SensitivityMseTerm | StatesTerm, student: Outputs, teacher: Outputs) -> float:
    return float(sum(share.sums.sum() for share in term(student, teacher, TARGETS)))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_have_a_mean_of_one_over_real_tokens_and_dimensions(power: float) -> None:
    (one, _) = found()["encoder"]
    weights = gradient_weights(one, power)
    mean = one.first_share * weights[0].mean() + (1 - one.first_share) * weights[1].mean()
    torch.testing.assert_close(mean, torch.tensor(1.0))
    assert torch.equal(weights, torch.ones(2, D)) == (power == 0)


def test_power_zero_and_weights_not_yet_learned_are_the_plain_hidden_mse() -> None:
    student, teacher = outputs(0), outputs(1)
    plain = value(StatesTerm(HiddenMse(), "classification", PAIR), student, teacher)
    for power, learned in ((0.0, True), (1.0, False)):
        term = SensitivityMseTerm(SensitivityMse(power=power), "classification", PAIR)
        if learned:
            term.learn(found())
        assert value(term, student, teacher) == pytest.approx(plain)


def test_only_what_the_answer_depends_on_counts_and_padding_never_does() -> None:
    term = SensitivityMseTerm(SensitivityMse(power=1.0), "classification", PAIR)
    squares = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    term.learn({"encoder": [SquaredGradients(squares, float(2 / MASK.sum()))] * 2})
    teacher = outputs(0)
    moved = [state.clone() for state in teacher.hidden["encoder"]]
    for state in moved:
        state[:, 0, 1:] += 7  # the first token is asked about dimension 0 alone
        state[:, 1:, [0, 2, 3]] += 7  # the others about dimension 1
        state[1, 2] = float("nan")  # padding
    student = Outputs(teacher.logits, {"encoder": moved})
    assert value(term, student, teacher) == 0
    moved[1][0, 0, 0] += 1
    assert value(term, student, teacher) > 0


def test_gradient_reaches_the_student_only() -> None:
    student, teacher = outputs(0), outputs(1)
    states = [*student.hidden["encoder"], *teacher.hidden["encoder"]]
    for state in states:
        state.requires_grad_()
    term = SensitivityMseTerm(SensitivityMse(), "classification", PAIR)
    term.learn(found())
    sum(share.sums.sum() for share in term(student, teacher, TARGETS)).backward()  # type: ignore[union-attr]
    assert [state.grad is not None for state in states] == [True, True, False, False]
