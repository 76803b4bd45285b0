"""READY or not and why, which model to deploy, and advice that can be followed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import made_up_run
from attar.artifacts import Result
from attar.recipe.load import parse_recipe
from attar.report.quantities import NBSP
from attar.report.reading import Made, read_made
from attar.report.sections.comparison import comparisons
from attar.report.sections.headline import Headline
from attar.report.sections.page import page_of
from attar.report.sections.verdict import settings_to_try, verdict_of, worst_loss

Models = dict[str, tuple[str, int, float, float, float, float]]
MET = {"metric": "scores.deploy.accuracy", "at_least": 0.7}


def headline_of(out: Path, gates: list[dict[str, Any]], models: Models | None = None) -> Headline:
    inputs = made_up_run.write_run(out / "run")
    if models is not None:
        metrics = made_up_run.evaluate_metrics(models)
        inputs["scores"] = made_up_run.write_step(out / "other", "scores", "evaluate", metrics)
    content = made_up_run.recipe(gates=gates)
    return page_of(read_made(inputs, content), content).headline


def with_accuracy(**values: float) -> Models:
    models = dict(made_up_run.MODELS)
    for name, accuracy in values.items():
        models[name] = (*models[name][:2], accuracy, *models[name][3:])
    return models


def test_a_run_is_ready_when_every_gate_is_met(tmp_path: Path) -> None:
    verdict = headline_of(tmp_path, [MET]).verdict
    assert (verdict.word, verdict.reasons) == ("READY", ("its gate is met",))


OF_TEACHER = {"metric": "scores.deploy.accuracy", "of": "scores.teacher.accuracy"}
FEW = {"value": 0.0, "ci95": [0.0, 0.0], "n": 60}
DOUBTED = [
    (
        {"max_drop": 0.02},
        {},
        "1,480 texts cannot tell for sure: the 95 % interval of the difference to teacher "
        "(−2.2 to 0.2 points) reaches the allowed drop of 2 points",
    ),
    (
        {"at_least": 0.73},
        {},
        "1,480 texts cannot tell for sure: the 95 % interval of deploy.accuracy (71.7 to 76.1) "
        "reaches the limit of 73.0 %",
    ),
    (
        {"at_most": 0.75},
        {},
        "1,480 texts cannot tell for sure: the 95 % interval of deploy.accuracy (71.7 to 76.1) "
        "reaches the limit of 75.0 %",
    ),
    (
        {"max_drop": 0.04},
        FEW,
        "60 texts cannot tell for sure: the two models do not differ on any of them, but may on "
        "up to 4.9 % of all texts (95 % confidence); the allowed drop is 4 points",
    ),
    ({"max_drop": 0.03}, {}, ""),
    ({"at_least": 0.71}, {}, ""),
    ({"max_drop": 0.05}, FEW, ""),
    # as measured on 60 texts, three of which changed: the end of the interval is the limit
    (
        {"max_drop": 0.05},
        FEW | {"value": -1 / 60, "ci95": [0.95 - 1 - 1e-16, 0.0]},
        "60 texts cannot tell for sure: the 95 % interval of the difference to teacher (−5.0 to "
        "0.0 points) reaches the allowed drop of 5 points",
    ),
]


@pytest.mark.parametrize(("limits", "measured", "doubt"), DOUBTED)
def test_a_met_gate_whose_interval_reaches_the_limit_is_not_met_for_sure(
    limits: dict[str, float], measured: dict[str, Any], doubt: str, tmp_path: Path
) -> None:
    inputs = made_up_run.write_run(tmp_path)
    metrics = made_up_run.evaluate_metrics()
    for difference in metrics["differences"]:
        difference |= measured
    inputs["scores"] = made_up_run.write_step(tmp_path / "other", "scores", "evaluate", metrics)
    gate = (OF_TEACHER if "max_drop" in limits else {"metric": OF_TEACHER["metric"]}) | limits
    content = made_up_run.recipe(gates=[gate])
    page = page_of(read_made(inputs, content), content)
    verdict, tile = page.headline.verdict, page.headline.tiles[-1]
    assert (verdict.word, verdict.is_sure) == ("READY", not doubt)
    said = f"its gate is met, but {doubt}" if doubt else "its gate is met"
    assert verdict.reasons[0].replace(NBSP, " ") == said
    assert tile.detail == ("all met; 1 uncertain" if doubt else "all met")
    assert bool(verdict.advice) is bool(doubt)
    assert page.headline.lines[0] == f"READY: {verdict.reasons[0]}"


RAISE = "Raise validation_share"
DEPLOYS = "deploy", "deploy_ort"
ADD = "Add rows to the validation file of [data.docs]"
FILES = {"path": "docs.csv", "validation": None, "validation_share": 0.1}


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        (
            FILES,
            f"{ADD}, or, if there is none, raise validation_share (now 0.1), which "
            "takes rows from train.",
        ),
        (
            FILES | {"validation_share": 0.25},
            f"{RAISE} (now 0.25) in [data.docs], which takes rows from train, or add rows to "
            "its file.",
        ),
        (FILES | {"validation": "dev"}, f"{ADD}."),
        (FILES | {"validation_rows": 200}, "Raise validation_rows (now 200) in [data.docs]."),
        ({}, "Data 'docs' needs a larger validation split."),
    ],
)
def test_where_more_texts_come_from_depends_on_the_data(
    settings: dict[str, Any], how: str, tmp_path: Path
) -> None:
    content = made_up_run.recipe(
        gates=[OF_TEACHER | {"max_drop": 0.02}], data={"docs": {"source": "files", **settings}}
    )
    made = read_made(made_up_run.write_run(tmp_path), content)
    (advice,) = page_of(made, content).headline.verdict.advice
    assert advice.startswith("more texts to evaluate on: four times as many halve the interval. ")
    assert how in advice


def test_rows_held_out_of_train_are_no_advice_for_another_split(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    metrics = made_up_run.evaluate_metrics()
    metrics["data"]["split"] = "test"
    inputs["scores"] = made_up_run.write_step(tmp_path / "other", "scores", "evaluate", metrics)
    data = {"docs": {"source": "files", **FILES, "test": None, "validation_share": 0.25}}
    content = made_up_run.recipe(gates=[OF_TEACHER | {"max_drop": 0.02}], data=data)
    (advice,) = page_of(read_made(inputs, content), content).headline.verdict.advice
    assert advice.endswith("Add rows to the test file of [data.docs].")


def test_a_missed_gate_and_an_unmeasured_one_are_reasons(tmp_path: Path) -> None:
    gates = [MET, {"metric": "scores.deploy.size_mib", "at_most": 16.0}]
    verdict = headline_of(tmp_path, [*gates, {"metric": "scores.deploy.f2", "at_least": 1}]).verdict
    assert verdict.word == "NOT READY"
    assert verdict.reasons == (
        "scores.deploy.size_mib is 17.3, required: at most 16",
        "scores.deploy.f2 was not measured",
    )
    assert verdict.advice == (
        "fewer blocks in keep_blocks of [steps.student]",
        "embedding_bits = 4 in [steps.int8]",
    )


def test_without_gates_nothing_is_judged_and_a_gate_is_proposed(tmp_path: Path) -> None:
    verdict = headline_of(tmp_path, []).verdict
    assert verdict.word == "NOT JUDGED"
    assert 'metric = "scores.deploy.accuracy", of = "scores.teacher.accuracy"' in verdict.reasons[0]


def test_the_proposed_gate_limits_a_metric_that_is_better_the_lower_it_is(tmp_path: Path) -> None:
    """`check` refuses max_drop for such a metric."""
    (comparison,) = comparisons(
        read_made(made_up_run.write_run(tmp_path), made_up_run.recipe(gates=[]))
    )
    rows = tuple(
        replace(row, qualities={"nll": row.qualities["accuracy"]}) for row in comparison.families
    )
    language = replace(comparison, metrics=("nll",), families=rows)
    (reason,) = verdict_of([], comparison=language, product=rows[-1]).reasons
    baseline = language.family(language.baseline)
    assert baseline is not None
    name, value = rows[-1].name, baseline.qualities["nll"].value
    assert reason.endswith(f'metric = "scores.{name}.nll" and at_most = {value:.4g}')


def test_a_model_at_chance_is_not_ready_whatever_the_gates_say(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    metrics = made_up_run.evaluate_metrics()
    metrics["data"]["chance"] = {"accuracy": 0.74}
    inputs["scores"] = made_up_run.write_step(tmp_path / "other", "scores", "evaluate", metrics)
    content = made_up_run.recipe(gates=[MET])
    verdict = page_of(read_made(inputs, content), content).headline.verdict
    assert verdict.word == "NOT READY"
    assert verdict.reasons == ("deploy is no better than a constant prediction",)


def test_the_step_that_lost_most_is_named_with_settings_to_try(tmp_path: Path) -> None:
    gate = {"metric": "scores.deploy.accuracy", "at_least": 0.74}
    models = with_accuracy(int8=0.71, deploy=0.70)
    (line,) = headline_of(tmp_path, [gate], models).verdict.advice
    assert line.startswith(
        "int8: 3.1 points lower than student in accuracy, the largest loss among the steps. "
        'In [steps.int8], try method = "auto" ('
    )


def test_a_student_is_held_against_its_teacher(tmp_path: Path) -> None:
    gate = {"metric": "scores.deploy.accuracy", "at_least": 0.74}
    models = with_accuracy(student=0.69, int8=0.69, deploy=0.69)
    (line,) = headline_of(tmp_path, [gate], models).verdict.advice
    assert "student: 5.9 points lower than teacher" in line
    assert "more blocks in keep_blocks (now 3)" in line


def test_of_metrics_that_fall_the_rise_is_the_loss(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    metrics = made_up_run.evaluate_metrics()
    for figures, nll in zip(metrics["models"].values(), (3.0, 3.1, 4.0, 3.9, 3.8), strict=True):
        figures["nll"] = {"value": nll, "ci95": [nll, nll], "n": 9}
    inputs["scores"] = made_up_run.write_step(tmp_path / "other", "scores", "evaluate", metrics)
    made = read_made(inputs, made_up_run.recipe())
    worst = worst_loss("deploy", "nll", made, comparisons(made)[0])
    assert worst is not None
    assert (worst.step.name, worst.before) == ("int8", "student")


def test_the_fastest_deployed_model_is_to_be_taken_and_why(tmp_path: Path) -> None:
    found = headline_of(tmp_path, [MET])
    assert found.choice.replace(NBSP, " ") == (
        "Take deploy (OpenVINO): the fastest of the 2 deployed models "
        "(6.92 ms; deploy_ort 8.11 ms, without a gate)."
    )


def test_a_slower_model_that_meets_its_gates_is_taken_before_a_faster_that_does_not(
    tmp_path: Path,
) -> None:
    missed = [MET | {"at_least": 0.9}, MET | {"metric": "scores.deploy_ort.accuracy"}]
    found = headline_of(tmp_path, missed)
    assert found.product == "deploy_ort"
    assert found.choice.replace(NBSP, " ") == (
        "Take deploy_ort (ONNX Runtime): the only one that meets its gates "
        "(8.11 ms; deploy 6.92 ms, misses a gate)."
    )


def test_no_model_is_to_be_taken_if_the_best_misses_a_gate(tmp_path: Path) -> None:
    missed = [MET | {"metric": f"scores.{n}.accuracy", "at_least": 0.9} for n in DEPLOYS]
    assert headline_of(tmp_path, missed).choice == ""


def test_the_only_model_with_a_gate_is_said_to_be_the_only_one(tmp_path: Path) -> None:
    found = headline_of(tmp_path, [MET | {"metric": "scores.deploy_ort.accuracy"}])
    assert found.choice.replace(NBSP, " ") == (
        "Take deploy_ort (ONNX Runtime): the only one that meets its gates "
        "(8.11 ms; deploy 6.92 ms, without a gate)."
    )


STEPS = {
    "train": 'run = "train"\ndata = "docs"\nepochs = 3',
    "quantize": """run = "quantize"
method = "percentile"
weight_bits = 4
activation_bits = 6
calibration = { data = "docs" }""",
    "export": 'run = "export"\nformat = "openvino"',
}


BEFORE = """name = "a"
[data.docs]
source = "stdlib_docs"
[steps.model]
run = "train"
model = "demo:minilm-l6"
data = "docs"
[steps.x]
"""


def settings_of(run: str, *overrides: str) -> Mapping[str, Any]:
    """A step's settings as a run has them, checked."""
    model = "demo:minilm-l6" if run == "train" else "model"
    recipe = parse_recipe(f'{BEFORE}model = "{model}"\n{STEPS[run]}\n', overrides)
    return recipe.model_dump(mode="json", by_alias=True)["steps"]["x"]


@pytest.mark.parametrize("run", STEPS)
def test_every_setting_that_is_advised_exists_and_takes_the_value(run: str) -> None:
    step = Made("x", Result("x", run, "0" * 16), settings_of(run))
    advised = [re.match(r"([\w.]+) = (\S+)", line) for line in settings_to_try(step)]
    assert advised
    for setting in advised:
        assert setting is not None
        assert settings_of(run, f"steps.x.{setting[1]}={setting[2]}") != step.settings
