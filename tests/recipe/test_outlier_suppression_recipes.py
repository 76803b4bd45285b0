"""The recipes of Outlier Suppression's tables hold the rows and settings that are printed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from attar.analysis.config import ClippingStep
from attar.evaluation.config import EvaluateStep
from attar.quantization.config import QatStep, QuantizeSettings
from attar.quantization.methods import METHODS, method_of, name_of
from attar.recipe.load import load_recipe
from attar.recipe.schema import Recipe
from attar.training.config import TrainStep

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "outlier_suppression"
TASKS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb")
MODELS = {
    "bert": "google-bert/bert-base-uncased",
    "roberta": "FacebookAI/roberta-base",
    "bart": "facebook/bart-base",
}
TABLE_14 = ("omse", "step_size", "percentile", "token_wise_clipping")
KD_ROWS = {"lsq_plus_kd": "lsq_plus", "ours_kd": "ours"}


@cache
def recipe(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.toml")


def quantized(name: str, task: str) -> dict[str, Any]:
    """Row → its step, of one task's model."""
    steps = recipe(name).steps.items()
    own = {row: step for row, step in steps if isinstance(step, QuantizeSettings)}
    return {row.removeprefix(f"{task}_"): s for row, s in own.items() if s.model == task}


def trained(name: str) -> dict[str, str]:
    steps = recipe(name).steps.items()
    return {row: str(step.model) for row, step in steps if isinstance(step, TrainStep)}


@pytest.mark.parametrize("key", MODELS)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_rows_of_table_14_and_the_parts_of_the_method(
    key: str, task: str
) -> None:
    name = f"glue_{key}"
    assert trained(name) == dict.fromkeys(TASKS, MODELS[key])
    steps = quantized(name, task)
    for row, step in steps.items():
        bits = int(row[-1])
        assert (step.weight_bits, step.activation_bits, step.embedding_bits) == (bits, bits, None)
        assert (step.calibration.data, step.calibration.examples) == (task, 256)
        if name_of(step) == "percentile":
            assert (step.percentile, step.choose_by) == (None, "validation")
    at_6 = {row[:-2]: step for row, step in steps.items() if row.endswith("_6")}
    table_14 = [at_6[row] for row in ("omse", "step_size", "percentile", "coarse")]
    assert tuple(name_of(step) for step in table_14) == TABLE_14
    assert at_6["step_size"].start == "omse"
    coarse = at_6["coarse"]
    assert (coarse.refine, method_of(coarse).transform_of(coarse)) == (False, "none")
    parts = {row: method_of(at_6[row]) for row in ("minmax", "migration", "clipping", "os")}
    moved = {row: parts[row].transform_of(at_6[row]) for row in parts}
    assert moved == {"minmax": "none", "migration": "gamma", "clipping": "none", "os": "gamma"}
    ranges = METHODS["minmax"].ranges, METHODS["outlier_suppression"].ranges
    assert tuple(parts[row].ranges for row in parts) == tuple(r for r in ranges for _ in (0, 1))


@pytest.mark.parametrize("key", ["roberta", "bart"])
def test_table_16_has_its_rows_and_searches_every_learning_rate(key: str) -> None:
    name = f"table_16_{key}"
    rows = ["pact", "lsq_plus", "ours"]
    rows = ["quant_noise", *rows, "lsq_plus_kd", "ours_kd"] if key == "roberta" else rows
    assert trained(name) == dict.fromkeys(TASKS, MODELS[key])
    sweep = recipe(name).sweep
    assert sweep is not None
    assert sweep.steps == tuple(f"{task}_{row}" for task in TASKS for row in rows)
    assert sweep.settings == {"learning_rate": (1e-5, 2e-5, 3e-5, 4e-5, 5e-5)}
    for task in TASKS:
        steps = quantized(name, task)
        assert list(steps) == rows
        for row, step in steps.items():
            assert isinstance(step, QatStep)
            bits = (step.weight_bits, step.embedding_bits, step.activation_bits)
            assert bits == (4, 4, 4)
            assert (step.batch_size, step.epochs) == (32, 6 if task in ("mnli", "qqp") else 12)
            assert step.quant_noise == (0.5 if row == "quant_noise" else 1)
            assert step.distil == (row in KD_ROWS)
            ours = KD_ROWS.get(row, row) == "ours"
            assert step.transform == ("gamma" if ours else None)
            assert (step.start == "token_wise_clipping") == ours
            if row in KD_ROWS:
                without = steps[KD_ROWS[row]]
                assert step == without.model_copy(update={"distil": True})


def test_table_13_cuts_at_the_printed_values() -> None:
    gelu = (80.0, 60.0, 40.0, 20.0, 10.0, 5.0, 2.0, 1.5)
    norms = tuple(float(value) for value in range(-60, -15, 5))
    steps = recipe("table_13").steps.values()
    found = [(s.model, s.kinds, s.limits) for s in steps if isinstance(s, ClippingStep)]
    assert found == [
        ("mrpc", ("ffn_act",), gelu),
        ("qnli", ("mha_norm",), norms),
        ("cola", ("ffn_act",), gelu),
    ]
    assert trained("table_13")["cola"] == MODELS["bart"]


@pytest.mark.parametrize(
    ("name", "texts"), [("squad", ("squad1", "squad2")), ("summaries", ("cnn", "xsum"))]
)
def test_squad_and_summaries_have_the_same_rows_for_every_model(
    name: str, texts: tuple[str, ...]
) -> None:
    assert tuple(recipe(name).data) == texts
    rows = [set(quantized(name, model)) for model in trained(name)]
    assert rows[0] and all(row == rows[0] for row in rows)
    methods = {name_of(step) for step in quantized(name, next(iter(trained(name)))).values()}
    assert methods == {"minmax", "omse", "percentile", "outlier_suppression"}
    if name == "summaries":
        steps = quantized(name, "xsum").values()
        assert {step.calibration.batch_size for step in steps} == {4}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda file: file.stem)
def test_every_quantized_model_is_judged_beside_its_float_model(file: Path) -> None:
    steps = recipe(file.stem).steps
    judged = [step for step in steps.values() if isinstance(step, EvaluateStep)]
    beside = {model: step.models[0] for step in judged for model in step.models[1:]}
    expected = {
        name: step.model for name, step in steps.items() if isinstance(step, QuantizeSettings)
    }
    assert beside == expected
