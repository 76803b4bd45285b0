"""Mixed precision as a whole, on tiny models with real files: each of the three budgets."""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file

import deployments
import simulated
from attar.artifacts import MIB
from attar.data.config import FilesData
from attar.errors import ArtifactError, DataError, ModelError, UsageError
from attar.export.config import ExportStep
from attar.export.parity import FLOAT_TOLERANCE
from attar.export.run import export
from attar.models.load import load_model
from attar.models.simulated.qparams import ModelQParams
from attar.models.simulated.quantized import load_simulated
from attar.models.structure.sites import quantized_weights, sites_of
from attar.progress import Progress
from attar.quantization.config import Budget, QuantizeStep
from attar.quantization.precision.together import held_out_judge
from attar.scoring.judging import Judge
from attar.step import StepContext

AVERAGE = 5.0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("budgets")


@pytest.fixture(scope="module")
def average(root) -> simulated.QuantizedRun:
    return simulated.run_quantize(
        root, activation_bits=5, weight_bits=5, budget={"average_bits": AVERAGE}
    )


@pytest.fixture(scope="module")
def fast(root) -> simulated.QuantizedRun:
    """As fast as it can be: everything that is faster in int8 is in int8."""
    generous = simulated.run_quantize(root, budget={"max_latency_ms": 1000.0})
    assert generous.metrics["budget"]["latency"]["num_int8"] == 0
    return generous


def mean_bits(run: simulated.QuantizedRun) -> float:
    entries = ModelQParams.read(run.folder).weights
    counts = [entry.shape[0] * entry.shape[1] for entry in entries]
    return float(np.average([entry.bits for entry in entries], weights=counts))


def test_the_average_of_bits_is_kept_and_nearly_used(average):
    assert AVERAGE - 0.2 < mean_bits(average) <= AVERAGE
    assert average.metrics["budget"]["average_bits"] == pytest.approx(mean_bits(average))


def test_the_step_and_its_file_name_the_bits_that_came_out(average, fast):
    """Not the recipe's, which a budget replaces."""
    qparams = ModelQParams.read(average.folder)
    linear = [w for w in qparams.weights if w.kind == "linear"]
    counts = [w.shape[0] * w.shape[1] for w in linear]
    mean = float(np.average([w.bits for w in linear], weights=counts))
    assert average.metrics["weight_bits"] == pytest.approx(mean) != 5
    assert f"weights of {mean:.1f} bits on average" in qparams.words
    assert "activations of 5.0 bits on average (" in qparams.words
    names = ("weight_bits", "embedding_bits", "activation_bits")
    assert [fast.metrics[name] for name in names] == [32, 8, 32]
    words = ModelQParams.read(fast.folder).words
    left = len(fast.metrics["budget"]["float_tensors"])
    assert words.startswith("float weights, 8-bit embeddings and float activations (")
    assert f"{left} weights and activations stay float" in words


def test_a_model_that_is_left_in_float_passes_the_parity_gate(fast, tmp_path):
    """There is no quantization error to measure by: it is held to the tolerance of float."""
    context = deployments.context_for(tmp_path, "out", {"m": fast.folder})
    step: Any = ExportStep.model_validate({"model": "m", "format": "openvino", "data": "texts"})
    parity = export(step, context)["parity"]
    assert parity["against"] == "simulated"
    assert parity["relative_error"] <= parity["max_relative_error"] == FLOAT_TOLERANCE


def test_bits_differ_where_sensitivities_do(average):
    assert len({entry.bits for entry in ModelQParams.read(average.folder).weights}) > 1


def test_the_mean_of_activations_is_kept_too(average):
    """Each site counted by its values on the calibration texts; here only their order of size."""
    bits = {name: site["bits"] for name, site in average.metrics["sites"].items()}
    assert len(set(bits.values())) > 1
    assert min(bits.values()) < 5 < max(bits.values())


def test_the_file_is_as_large_as_planned(average):
    stored = load_file(average.folder / "weights.safetensors")
    held = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    assert average.metrics["budget"]["size_mib"] == pytest.approx(held / MIB, rel=1e-9)


def test_the_chosen_plan_is_no_worse_than_the_uniform_one(average):
    points = average.metrics["budget"]["points"]
    (uniform,) = [point for point in points if point["is_uniform"]]
    (chosen,) = [point for point in points if point["is_chosen"]]
    assert chosen["output_error"] <= uniform["output_error"]
    assert uniform["average_bits"] == pytest.approx(5)


def test_more_bits_never_lose_more_along_the_front(average):
    points = [p for p in average.metrics["budget"]["points"] if p["loss"] is not None]
    assert len(points) > 10
    for before, after in itertools.pairwise(points):
        assert after["average_bits"] > before["average_bits"]
        assert after["loss"] <= before["loss"]


def test_the_written_model_loads_and_its_metrics_are_plain(average):
    loaded = load_simulated(average.folder)
    quantized = {entry.fqn for entry in ModelQParams.read(average.folder).weights}
    assert quantized <= dict(loaded.model.named_parameters()).keys()
    assert json.loads(json.dumps(average.metrics, allow_nan=False))["budget"]


def test_embedding_bits_of_the_recipe_stay_out_of_the_budget(root):
    run = simulated.run_quantize(
        root, embedding_bits=8, budget={"average_bits": 3, "widths": (2, 4)}
    )
    for entry in ModelQParams.read(run.folder).weights:
        assert entry.bits == 8 if entry.kind == "embedding" else entry.bits in (2, 4)
    assert run.metrics["budget"]["average_bits"] <= 3


def test_a_wide_enough_limit_on_the_drop_takes_the_cheapest_plan(root):
    run = simulated.run_quantize(root, budget={"max_accuracy_drop": 0.99})
    assert mean_bits(run) == 2
    assert run.metrics["budget"]["drop"] <= 0.99


def test_a_drop_is_measured_on_rows_that_did_not_calibrate(root, monkeypatch):
    from attar.quantization.precision import together

    seen = []
    choose = together.choose_examples
    monkeypatch.setattr(
        together, "choose_examples", lambda *args: seen.append(choose(*args)) or seen[-1]
    )
    run = simulated.run_quantize(root, budget={"max_accuracy_drop": 0.99})
    used = json.loads((run.artifact / "calibration.json").read_text())["indices"]
    (order,) = seen
    assert order[:24].tolist() == used
    assert len(order) == 48


def test_rows_are_held_out_by_the_seed_that_calibration_has_also_when_it_is_0(root):
    simulated.run_quantize(root)
    loaded = load_model(root / "float")

    def rows(seed: int | None, seed_of_step: int) -> list[list[int]]:
        config = TypeAdapter(QuantizeStep).validate_python(
            {
                "model": "m",
                "method": "minmax",
                "calibration": {"data": "texts", "examples": 24, "seed": seed},
                "budget": {"max_accuracy_drop": 0.5},
            }
        )
        context = StepContext(
            *("s", root, root, {}),
            *({"texts": FilesData(path="texts")}, root, Progress(quiet=True)),
            seed=seed_of_step,
        )
        found = held_out_judge(config, loaded, context)
        return [found.encoded.batch([i])["input_ids"][0].tolist() for i in range(len(found.labels))]

    assert rows(0, 7) == rows(None, 0) != rows(None, 7)


def test_the_first_plan_within_the_limit_is_taken_and_none_before_it(root, monkeypatch):
    scores = [1.0, 0.85, 0.899, 0.9, 0.95]
    monkeypatch.setattr(Judge, "value", lambda *_: scores.pop(0))
    budget = simulated.run_quantize(root, budget={"max_accuracy_drop": 0.1}).metrics["budget"]
    drops = [(point["drop"], point["is_chosen"]) for point in budget["points"][:4]]
    assert drops == [
        (pytest.approx(0.15), False),
        (pytest.approx(0.101), False),
        (pytest.approx(0.1), True),
        (None, False),
    ]
    assert budget["average_bits"] == budget["points"][2]["average_bits"]


def test_an_impossible_drop_is_refused_with_what_is_possible(root, monkeypatch):
    scores = iter([1.0, *([0.5] * 100)])
    monkeypatch.setattr(Judge, "value", lambda *_: next(scores))
    with pytest.raises(UsageError, match=r"within 0\.1 of .* 1\.0000 on 24 .* loses 0\.5000"):
        simulated.run_quantize(root, budget={"max_accuracy_drop": 0.1})


def test_too_few_rows_for_a_small_drop_are_refused_with_the_numbers(root):
    with pytest.raises(DataError, match=r"0\.01 is measured on at least 100 .* has 24 left of 48"):
        simulated.run_quantize(root, budget={"max_accuracy_drop": 0.01})


def test_a_generous_latency_leaves_every_linear_float(fast):
    qparams = ModelQParams.read(fast.folder)
    assert {entry.kind for entry in qparams.weights} == {"embedding"}
    assert qparams.sites == ()
    model = load_simulated(fast.folder).model
    names = {site.name for site in sites_of(model)}
    linears = {name for name, kind in quantized_weights(model).items() if kind == "linear"}
    assert set(qparams.float_tensors) == names | linears


def test_a_plan_between_float_and_int8_keeps_the_latency_that_is_allowed(root, monkeypatch):
    """Of 14 Linears, 1 ms each in float and half of that in int8, in a model of 20 ms."""
    from attar.quantization.precision import latency_plan
    from attar.quantization.precision.latency import assembled

    def measured(_model, groups, *_):
        counted = [shape for group in groups for shape in group.shapes]
        return assembled(20.0, dict.fromkeys(counted, 1.0), dict.fromkeys(counted, 0.5), counted)

    monkeypatch.setattr(latency_plan, "measure_latencies", measured)
    run = simulated.run_quantize(root, budget={"max_latency_ms": 17.0})
    budget = run.metrics["budget"]
    assert budget["latency"]["num_linears"] == 14
    assert budget["latency"]["rest_ms"] == pytest.approx(6)
    num_int8 = budget["latency"]["num_int8"]
    assert budget["predicted_latency_ms"] == pytest.approx(20 - 0.5 * num_int8)
    assert 16 <= budget["predicted_latency_ms"] <= 17  # a group of three may overshoot by 1 ms
    linears = [w for w in ModelQParams.read(run.folder).weights if w.kind == "linear"]
    assert len(linears) == num_int8


def test_an_impossible_latency_is_refused_with_the_fastest_possible(root):
    with pytest.raises(UsageError, match=r"max_latency_ms is 1e-05, .* fastest possible .* ms"):
        simulated.run_quantize(root, budget={"max_latency_ms": 1e-5})


@pytest.mark.parametrize("broken", ["drop", "unknown", "twice"])
def test_a_missing_grid_is_an_error_unless_it_is_listed(fast, tmp_path, broken):
    import shutil

    folder = shutil.copytree(fast.folder, tmp_path / "model")
    file = folder / "qparams.json"
    content = json.loads(file.read_text())
    if broken == "drop":
        content["float_tensors"] = content["float_tensors"][1:]
        said = "has no grid"
    elif broken == "unknown":
        content["float_tensors"].append("bert.nowhere.weight")
        said = "float tensor bert.nowhere.weight is unknown"
    else:
        content["float_tensors"].append(content["weights"][0]["fqn"])
        said = "named more than once"
    file.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=said):
        load_simulated(folder)


def test_float_tensors_compute_what_the_float_model_does(fast):
    """Only the embedding tables are rounded; every Linear holds the float model's very values."""
    stored = load_file(fast.folder / "weights.safetensors")
    wanted = load_file(fast.float_folder / "model.safetensors")
    names = [n for n in ModelQParams.read(fast.folder).float_tensors if n.endswith(".weight")]
    assert names
    for name in names:
        assert torch.equal(stored[name], wanted[name])


def test_an_average_below_every_width_is_a_mistake_of_the_recipe():
    """Found by `attar check`, before anything runs."""
    with pytest.raises(ValidationError, match=r"average_bits is 2\.5, and the smallest .* is 3"):
        Budget(average_bits=2.5, widths=(3, 4))
    Budget(average_bits=3, widths=(3, 4))


SMALL = {"average_bits": 3, "widths": (2, 4)}


def test_a_resumed_step_takes_the_plan_it_had_chosen(root, tmp_path, monkeypatch):
    """A second measurement may end elsewhere, and a checkpoint fits one plan only."""
    from attar.quantization.precision import allocate

    first = simulated.run_quantize(root, scratch=tmp_path, budget=SMALL)
    monkeypatch.setattr(allocate, "weight_sensitivities", refuse)
    resumed = simulated.run_quantize(root, scratch=tmp_path, budget=SMALL)
    assert ModelQParams.read(resumed.folder) == ModelQParams.read(first.folder)
    told = [json.dumps(run.metrics["budget"], sort_keys=True) for run in (first, resumed)]
    assert told[0] == told[1]
    with pytest.raises(AssertionError, match="too late"):
        simulated.run_quantize(root, scratch=tmp_path, budget={**SMALL, "average_bits": 4})


def test_floats_and_widths_of_sites_survive_the_kill(tmp_path):
    from attar.models.simulated.qparams import Bits
    from attar.progress import Progress
    from attar.quantization.config import Calibration, MinmaxStep
    from attar.quantization.method import BitPlan
    from attar.quantization.precision.allocate import keep_plan, kept_plan
    from attar.step import StepContext

    config = MinmaxStep(model="m", calibration=Calibration(data="d"))
    plan = BitPlan(
        Bits(weight=8, embedding=4, activation=5), {"a:input": 6}, {"a": 3}, frozenset({"b"})
    )
    context = StepContext(
        "s", tmp_path, tmp_path / "scratch", {}, {}, tmp_path, Progress(quiet=True)
    )
    assert kept_plan(config, context) is None
    keep_plan((plan, {"drop": 0.1}), config, context)
    assert kept_plan(config, context) == (plan, {"drop": 0.1})


def refuse(*_, **__):
    raise AssertionError("too late")


def test_what_cannot_be_measured_is_refused_before_texts_are_chosen(root, monkeypatch):
    from attar.quantization import run

    simulated.run_quantize(root)
    monkeypatch.setattr(run, "_calibration_batches", refuse)
    with pytest.raises(DataError, match=r"at least 100 .* has 24 left of 48"):
        simulated.run_quantize(root, budget={"max_accuracy_drop": 0.01})
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="'openvino' is not installed"):
        simulated.run_quantize(root, budget={"max_latency_ms": 5.0})


@pytest.mark.parametrize("limit", ["max_accuracy_drop", "max_latency_ms"])
def test_a_limit_for_classifiers_is_refused_for_a_model_that_writes_text(limit, root, monkeypatch):
    from dataclasses import replace

    from attar.quantization import run

    load = run._load_float
    monkeypatch.setattr(run, "_calibration_batches", refuse)

    def writes_text(config, context):
        loaded = load(config, context)
        task = loaded.task.model_copy(update={"objective": "text_to_text"})
        return replace(loaded, task=task)

    monkeypatch.setattr(run, "_load_float", writes_text)
    with pytest.raises(
        ModelError, match=rf"{limit} is for models with a classification .* use average_bits"
    ):
        simulated.run_quantize(root, budget={limit: 0.5})


def test_a_transform_is_searched_for_the_width_that_the_budget_means(root):
    """Its decibels are those of readers rounded to about the average, not to the recipe's 8."""

    def before(**settings):
        run = simulated.run_quantize(root, transform="gamma", **settings)
        return [norm.get("sqnr_before_db") for norm in run.metrics["transform"]["norms"]]

    mixed = before(budget={"average_bits": 3.4, "widths": (2, 4)})
    assert mixed == before(weight_bits=3) != before()
