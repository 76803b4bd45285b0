"""A gate's path is read before the run: each word that names nothing is told with what there is."""

from __future__ import annotations

import pytest

from attar.errors import RecipeError
from attar.recipe.checking.gate_paths import gate_mistakes
from attar.recipe.load import parse_recipe
from attar.recipe.steps import STEPS
from engine_steps import RECIPE


def mistakes_in(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    return "\n".join(caught.value.mistakes)


def test_gates_begin_with_a_step() -> None:
    gate = '[[gates]]\nmetric = "score.int8.accuracy"\nat_least = 0.5\n'
    assert (
        "gates.0.metric (line 27): 'score.int8.accuracy' does not start with a step (did"
        in mistakes_in(RECIPE + gate)
    )
    bare = '[[gates]]\nmetric = "scores"\nat_least = 0.5\n'
    assert "names no metric" in mistakes_in(RECIPE + bare)
    nothing = '[[gates]]\nmetric = "scores.int8.accuracy"\nof = "scores.student.accuracy"\n'
    assert "`of` and `max_drop` must be given together" in mistakes_in(RECIPE + nothing)


def gate_on(metric: str) -> str:
    return RECIPE + f'[[gates]]\nmetric = "{metric}"\nat_least = 0.5\n'


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (
            "scores.int.accuracy",
            "'scores.int.accuracy': step 'scores' does not evaluate 'int' (did you mean 'int8'?); "
            "its models: teacher, student, int8",
        ),
        ("scores.models.studnt.f1.value", "does not evaluate 'studnt' (did you mean 'student'?)"),
        (
            "scores.int8.acuracy",
            "'acuracy' is not a metric of a model (did you mean 'accuracy'?)",
        ),
        (
            "scores.models.int8.latency",
            "'latency' is not a metric of a model (did you mean 'latency",
        ),
        ("scores.int8", "names no metric of 'int8'; write 'scores.int8.accuracy'"),
        (
            "teacher.accuracy",
            "runs 'train' has no metric 'accuracy'; an evaluate step measures",
        ),
        ("int8.accuracy", "'quantize' has no metric 'accuracy'; an evaluate step measures it"),
        ("int8.mean_sqnr", "has no metric 'mean_sqnr' (did you mean 'mean_sqnr_db'?)"),
        ("teacher.validaton.f1", "has no metric 'validaton' (did you mean 'validation'?); it has "),
    ],
)
def test_a_slip_in_a_gates_model_or_metric_is_found_before_the_run(metric: str, said: str) -> None:
    assert said in mistakes_in(gate_on(metric))


def test_what_a_gate_compares_with_is_checked_too() -> None:
    gate = 'metric = "scores.int8.accuracy"\nof = "scores.studnt.accuracy"\nmax_drop = 0.1\n'
    found = mistakes_in(f"{RECIPE}[[gates]]\n{gate}")
    assert found.startswith(
        "gates.0.of (line 28): 'scores.studnt.accuracy': step 'scores' does not eval"
    )


def test_only_an_evaluation_has_models_to_name() -> None:
    """Whatever else is called `models` in another step says nothing about its metrics."""
    steps = {"probe": {"run": "extrapolate", "models": ["teacher"]}}
    assert gate_mistakes([{"metric": "probe.loss"}], steps) == []
    steps["probe"]["run"] = "evaluate"
    assert len(gate_mistakes([{"metric": "probe.loss"}], steps)) == 1


@pytest.mark.parametrize(
    "metric",
    [
        *("scores.int8.accuracy", "scores.models.int8.accuracy.value", "scores.int8.accuracy.n"),
        *("scores.student.latency_ms.p50", "scores.int8.size_mib", "scores.data.rows"),
        *("scores.student.stages.decode_step.p50", "scores.student.parts.head.flops"),
        *("scores.int8.nll", "scores.int8.perplexity", "scores.int8.bits_per_byte"),
        *("scores.int8.spearman", "scores.machine.cores", "int8.mean_sqnr_db"),
        *("scores.teacher.peak_memory_mib", "teacher.validation.accuracy", "int8.sites.x.scale"),
    ],
)
def test_a_gate_may_name_any_number_that_a_step_measures(metric: str) -> None:
    assert parse_recipe(gate_on(metric)).gates[0].metric == metric


def test_a_gate_on_what_an_export_does_not_measure_is_found_before_the_run() -> None:
    deploy = '[steps.deploy]\nrun = "export"\nmodel = "int8"\n'
    for metric in ("parity.examples", "size_mib"):
        parse_recipe(gate_on(f"deploy.{metric}").replace("[[gates]]", deploy + "[[gates]]"))
    gates = gate_on("deploy.accuracy")
    said = "a step that runs 'export' has no metric 'accuracy'; an evaluate step measures it"
    assert said in mistakes_in(gates.replace("[[gates]]", deploy + "[[gates]]"))


@pytest.mark.parametrize("run", [run for run, kind in STEPS.items() if kind.metrics is not None])
def test_the_names_of_a_result_are_the_type_that_its_step_returns(run: str) -> None:
    kind = STEPS[run]
    assert kind.metrics is not None
    assert kind.resolve().__annotations__["return"] == kind.metrics.__name__


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("at_least = 0", "at_least = 0 cannot be missed: accuracy lies between 0 and 1"),
        ("at_most = 1", "at_most = 1 cannot be missed: accuracy lies between 0 and 1"),
        (
            'of = "scores.teacher.accuracy"\nmax_drop = 3',
            "max_drop = 3 cannot be missed: accuracy lies between 0 and 1; 3 points are 0.03",
        ),
    ],
)
def test_a_gate_that_cannot_be_missed_is_a_mistake(limits: str, said: str) -> None:
    gate = f'[[gates]]\nmetric = "scores.int8.accuracy"\n{limits}\n'
    assert said in mistakes_in(RECIPE + gate)


@pytest.mark.parametrize(
    "limits",
    ["at_least = 2", "at_most = 0.99", 'of = "scores.teacher.accuracy"\nmax_drop = 0.99'],
)
def test_a_gate_that_can_be_missed_is_none(limits: str) -> None:
    parse_recipe(RECIPE + f'[[gates]]\nmetric = "scores.int8.accuracy"\n{limits}\n')
