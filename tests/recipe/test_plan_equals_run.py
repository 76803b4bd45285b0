"""What a plan says of parameters, rows and steps is what the run then does: shipped recipes with a
tiny model in the place of the pretrained one, on a few rows that this test writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tiny
import training_runs
from attar.artifacts import read_result
from attar.recipe.load import load_recipe
from attar.recipe.outcome.gates import metric_at
from attar.recipe.outcome.sweep import expand
from attar.recipe.plan import Plan, plan_recipe
from attar.recipe.run import run_recipe
from attar.recipe.steps import STEPS
from tiny_recipe import TinyRun

ROWS = 72
FEW = ["max_length=24", "learning_rate=1e-3", 'precision="fp32"']
"""For every train step: the tiny model has 64 positions, and no precision need be measured."""
ON_ONNX_RUNTIME = '[steps.{}]\nrun = "export"\nmodel = "int8"\nformat = "onnxruntime"\n'
LEFT_OUT = {"demo": "deploy_ort", "mrpc": "onnxruntime"}
"""Exports that take seconds; the tiny recipe has one."""
REPORT = '[steps.report]\nrun = "report"\n'
"""Draws charts for seconds, and a plan counts nothing of it; the tiny recipe has one."""
RECIPES = {
    "demo": ["data.docs.train_rows=70", "data.docs.validation_rows=24"],
    "mrpc": ["data.mrpc.path=glue", "steps.student.epochs=1"],
    "ablation": ["data.sst2.path=glue", "data.sst2.train_rows=71"],
    "eofd_minilm": [
        *("data.text.path=glue", "data.text.train_rows=60"),
        *("steps.tails.calibration.examples=16", "steps.worth.calibration.examples=16"),
        'sweep={ steps = ["pred"], seed = [0, 1] }',
    ],
}


def planned(recipe: Path, overrides: list[str]) -> Plan:
    return plan_recipe(expand(load_recipe(recipe, overrides)).recipe, recipe.parent)


def require_equal(plan: Plan, run: Path) -> None:
    """Every count of the plan is the figure of that name in the step's result."""
    metrics = {step.name: read_result(run / step.name).metrics for step in plan.steps}
    found = {
        f"{step.name}.{count}": (expected, metric_at(f"x.{count}", {"x": metrics[step.name]}))
        for step in plan.steps
        for count, expected in step.counts.items()
    }
    assert {name: pair for name, pair in found.items() if pair[0] != pair[1]} == {}
    for step in plan.steps:
        if "epochs" in metrics[step.name]:
            assert step.passes == pytest.approx(metrics[step.name]["epochs"], abs=1e-4)
        if names := STEPS[step.run].metrics:
            found, every = set(metrics[step.name]), set(names.__annotations__)
            assert names.__required_keys__ <= found <= every
    counted = {step.run for step in plan.steps if step.counts}
    assert counted == {step.run for step in plan.steps} - {"report", "analyze"}


def write_glue(folder: Path) -> None:
    for task, keys in (("sst2", ["sentence"]), ("mrpc", ["sentence1", "sentence2"])):
        (folder / task).mkdir(parents=True)
        for split, rows in (("train", ROWS), ("validation", 24)):
            lines = [
                json.dumps(dict.fromkeys(keys, f"a good film {i}") | {"label": i % 2, "idx": i})
                for i in range(rows)
            ]
            (folder / task / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def shrunk(recipe: Path) -> Iterator[str]:
    for name, step in load_recipe(recipe).steps.items():
        table: dict[str, Any] = step.model_dump()
        if table["run"] == "train":
            yield from (f"steps.{name}.{setting}" for setting in FEW)
        if table.get("model") == "demo:minilm-l6":
            yield f'steps.{name}.model={{ from = "bert", new_head = true }}'
        if table["run"] == "cache":
            yield f"steps.{name}.max_length=24"
        if "calibration" in table and table["run"] == "quantize":
            yield f"steps.{name}.calibration.examples=4"
        if table["run"] == "evaluate":
            yield from (
                f"steps.{name}.{s}" for s in ("speed=false", "memory=false", "bootstrap=100")
            )
        if table["run"] == "export":
            limits = "{ max_relative_error = 1e6, max_label_flips = 1.0 }"
            yield f"steps.{name}.parity={limits}"


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_does_what_its_plan_says(
    name: str, tmp_path: Path, repository: Path
) -> None:
    text = (repository / "recipes" / f"{name}.toml").read_text()
    tiny.write_tiny_bert(tmp_path / "bert", blocks=6 if "keep_blocks" in text else 2)
    write_glue(tmp_path / "glue")
    recipe = tmp_path / "recipe.toml"
    if step := LEFT_OUT.get(name):
        text = text.replace(ON_ONNX_RUNTIME.format(step), "").replace(f', "{step}"]', "]")
    assert REPORT in text
    recipe.write_text(text.replace(REPORT, ""))
    overrides = [*RECIPES[name], *shrunk(recipe)]
    plan = planned(recipe, overrides)
    summary = run_recipe(
        recipe, overrides=overrides, out=tmp_path / "runs", quiet=True, enforce_gates=False
    )
    require_equal(plan, summary.folder)


def test_the_tiny_recipe_does_what_its_plan_says(tiny_run: TinyRun) -> None:
    require_equal(planned(tiny_run.recipe, []), tiny_run.folder)


@pytest.mark.parametrize(
    "settings", [{"max_steps": 4}, {"epochs": 1.5}, {"epochs": 1, "teacher": "bert"}]
)
def test_planned_operations_of_training_are_those_that_torch_counts(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of one length need no padding, which a plan leaves out."""
    monkeypatch.setattr("attar.planning.measured_flops_per_s", lambda *asked: 1e9)
    training_runs.prepare(tmp_path)
    for split, rows in (("train", 48), ("validation", 24)):
        row = (
            json.dumps({"text": "a good film", "label": ("bad", "good")[i % 2]})
            for i in range(rows)
        )
        (tmp_path / "films" / f"{split}.jsonl").write_text("\n".join(row) + "\n")
    given = {**training_runs.SETTINGS, "max_steps": None, **settings}
    lines = [f"{name} = {json.dumps(v)}" for name, v in given.items() if v is not None]
    data = '[data.films]\nsource = "files"\npath = "films"\ntext = "text"\n'
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "x"\n' + data + '[steps.learn]\nrun = "train"\n' + "\n".join(lines))
    [step] = planned(recipe, []).steps
    with FlopCounterMode(display=False) as counter:
        training_runs.run_training(tmp_path, **given)
    assert counter.get_total_flops() == pytest.approx(step.flops, rel=0.02)


def test_a_step_is_planned_by_the_function_its_row_names() -> None:
    """No kind of step has a plan by default."""
    with pytest.raises(TypeError, match="plan"):
        type(STEPS["train"])("attar.training.run:train")  # type: ignore[call-arg]
    assert all(callable(kind.resolve_plan()) for kind in STEPS.values())


def test_a_plan_is_made_for_the_device_that_the_run_takes(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def speed(precision: str, device: torch.device) -> float:
        asked.append((precision, device.type))
        return 1e9

    monkeypatch.setattr("attar.planning.measured_flops_per_s", speed)
    monkeypatch.setattr("attar.training.plan.device_here", lambda: torch.device("meta"))
    planned(tiny_run.recipe, [])
    assert ("fp32", "meta") in asked  # training
    assert ("fp32", "cpu") in asked  # calibration and evaluation
