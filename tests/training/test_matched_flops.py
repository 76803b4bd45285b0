"""Steps that a budget of FLOPs pays for: the papers' formulas, and no step more than is paid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

import tiny
from attar.errors import UsageError
from attar.losses.config import CrossEntropy, ForwardKl, PolicyGradient
from attar.models.cost import Cost, non_embedding_params
from attar.step import CountedFlops
from attar.training.config import TrainStep
from attar.training.work import TrainingWork, forward_flops

ROWS = 1_000_000
TEACHER = 1.8
STEPS = 100_000
"""Of the step that is matched."""


def _work(
    student: float, teacher: float | None = None, rows: int = ROWS, **settings: Any
) -> TrainingWork:
    """Models by their parameters in billions; by all matrix products, they take twice as much."""
    is_cached = settings.pop("is_cached", False)
    named = {} if teacher is None else {"teacher": "t"}
    config = TrainStep(model="m", data="d", batch_size=8, match_flops="plain", **(named | settings))
    one, other = (
        None if size is None else CountedFlops(round(4e9 * size), round(2e9 * size))
        for size in (student, teacher)
    )
    assert one is not None
    return TrainingWork(config, rows, one, other, is_cached)


@pytest.mark.parametrize(
    ("student", "distilled", "minillm", "printed"),
    [
        (0.2, 25_000, 13_636, (25, 15)),
        (0.5, 45_454, 26_785, (45, 30)),
        (1.2, 66_666, 42_857, (65, 40)),
    ],
)
def test_steps_are_those_of_the_papers_formulas(
    student: float, distilled: int, minillm: int, printed: tuple[int, int]
) -> None:
    """3·N_s·T / (3·N_s + N_t) and 3·N_s·T / (4·N_s + 2·N_t); the paper rounds to 5,000 steps."""
    budget = _work(student).flops(STEPS)
    distilling = _work(student, TEACHER, count_flops="non_embedding")
    assert distilling.teacher is not None
    # a continued prompt is as long as a text; papers leave out the loss on texts beside it
    writing = replace(
        distilling,
        config=distilling.config.model_copy(update={"losses": (PolicyGradient(), CrossEntropy())}),
        continued=(distilling.student, distilling.teacher),
    )
    taught, written = (each.matched(budget, "kd", "plain") for each in (distilling, writing))
    assert (taught["steps"], written["steps"]) == (distilled, minillm)
    for found, said in zip((distilled, minillm), printed, strict=True):
        assert abs(found - 1000 * said) < 5000


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("rows", [7, 64, 100, 1001])
@pytest.mark.parametrize("budget", [1, 3, 150, 4321])
def test_no_step_more_than_the_budget_pays_for(is_cached: bool, rows: int, budget: int) -> None:
    """Though every epoch ends with a batch that may be short."""
    work = _work(0.2, 0.1, rows, is_cached=is_cached)
    paid = _work(0.2, rows=77).flops(budget + 4)
    for count in ("all", "non_embedding"):
        asked = replace(work, config=work.config.model_copy(update={"count_flops": count}))
        steps = asked.matched(paid, "kd", "plain")["steps"]
        taken, more = (getattr(asked.flops(n), count) for n in (steps, steps + 1))
        assert taken <= getattr(paid, count) < more


def test_of_all_products_the_losses_on_texts_beside_continuations_count_too() -> None:
    work = _work(0.2, 0.5, 80)
    short = CountedFlops(10, 5), CountedFlops(30, 15)

    def taken(*losses: Any) -> int:
        config = work.config.model_copy(update={"losses": (PolicyGradient(), *losses)})
        return replace(work, config=config, continued=short).flops(10).all

    alone = 80 * (4 * 10 + 2 * 30)
    assert taken() == alone
    assert taken(CrossEntropy()) == alone + _work(0.2, rows=80).flops(10).all
    assert taken(CrossEntropy(), ForwardKl()) == alone + work.flops(10).all


def test_a_student_like_the_matched_one_gets_its_steps() -> None:
    work = _work(0.3, rows=1000)
    for steps in (1, 125, 126, 1000):
        assert work.matched(work.flops(steps), "again", "plain")["steps"] == steps


def test_a_caches_teacher_is_counted_once_a_row() -> None:
    cached, live = (_work(0.2, 0.5, 80, is_cached=is_cached) for is_cached in (True, False))
    alone = _work(0.2, rows=80)
    for epochs, asked in ((1, [1, 1]), (4, [1, 4])):
        rest = alone.flops(10 * epochs).all
        extra = [work.flops(10 * epochs).all - rest for work in (cached, live)]
        assert extra == [80 * 2e9 * times for times in asked]


def test_a_budget_below_one_step_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        UsageError, match=r"less than one.*step takes 5\.6e\+10.*took 1\.92e\+10.*3 "
    ):
        _work(0.2, 1.15).matched(_work(0.1, rows=2).flops(8), "kd", "plain")


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_papers_count_the_parameters_of_blocks_and_norms(family: str) -> None:
    model = tiny.tiny_language_model("llama", tie_word_embeddings=False)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    _require_blocks_and_norms(model)
    _require_blocks_and_norms(tiny.tiny_model(family))


def _require_blocks_and_norms(model: Any) -> None:
    named = {name: p.numel() for name, p in model.named_parameters()}
    tables = ("embed_tokens", "wte", "wpe", "_embeddings.weight", "lm_head")
    blocks = sum(n for name, n in named.items() if not any(table in name for table in tables))
    assert non_embedding_params(model) == blocks
    assert forward_flops(Cost(model), 5).non_embedding == 10 * blocks


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"match_flops": "plain", "epochs": 2}, "match_flops = 'plain' and epochs = 2.0"),
        ({"match_flops": "plain", "max_tokens": 9}, "remove all but one"),
        ({"count_flops": "all"}, "only applies with match_flops"),
    ],
)
def test_a_length_is_said_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainStep(model="m", data="d", **settings)
