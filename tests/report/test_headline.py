"""The first sentence says what the figures say, and claims nothing about chance on its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import made_up_run
from attar.report.quantities import NBSP
from attar.report.reading import read_made
from attar.report.sections.headline import Headline
from attar.report.sections.page import page_of


def headline_of(inputs: dict[str, Path], content: dict[str, Any] | None = None) -> Headline:
    content = made_up_run.recipe() if content is None else content
    return page_of(read_made(inputs, content), content).headline


def sentence(inputs: dict[str, Path], content: dict[str, Any] | None = None) -> str:
    return headline_of(inputs, content).sentence.replace(NBSP, " ")


def with_scores(out: Path, metrics: dict[str, Any]) -> dict[str, Path]:
    inputs = made_up_run.write_run(out / "run")
    inputs["scores"] = made_up_run.write_step(out / "other", "scores", "evaluate", metrics)
    return inputs


def test_the_sentence_compares_the_fastest_deployed_model_with_the_first_float_one(
    tmp_path: Path,
) -> None:
    assert sentence(made_up_run.write_run(tmp_path)) == (
        "6-block teacher → 3-block int8 student: 6.0× faster, 5.0× smaller, accuracy "
        "1.0 points lower on 1,480 texts (not significant: 95 % interval −2.2 to 0.2)"
    )


def test_a_real_difference_is_called_so(tmp_path: Path) -> None:
    models = dict(made_up_run.MODELS)
    form, blocks, _, *rest = models["deploy"]
    models["deploy"] = (form, blocks, 0.70, *rest)
    inputs = with_scores(tmp_path, made_up_run.evaluate_metrics(models))
    words = "accuracy 4.9 points lower on 1,480 texts (a real difference: 95 % interval −6.1 to"
    assert words in sentence(inputs)


def test_without_a_paired_interval_no_difference_is_called_real(tmp_path: Path) -> None:
    inputs = with_scores(tmp_path, made_up_run.evaluate_metrics() | {"differences": []})
    assert sentence(inputs).endswith("5.0× smaller, accuracy 1.0 points lower")


def test_a_slower_and_larger_model_is_called_slower_and_larger(tmp_path: Path) -> None:
    models = dict(made_up_run.MODELS)
    models["deploy"] = ("openvino", 3, 0.7391, 82.4, 173.4, 164.0)
    del models["deploy_ort"]
    inputs = with_scores(tmp_path, made_up_run.evaluate_metrics(models))
    assert "2.0× slower, 2.0× larger" in sentence(inputs)


def test_runs_that_disagree_about_a_difference_are_counted(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path)
    assert "(a real difference in 1 of 3 runs)" in sentence(inputs, content)


def test_without_an_evaluation_the_headline_says_what_is_missing(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    found = headline_of({"teacher": inputs["teacher"]}, made_up_run.recipe(gates=[]))
    assert found.sentence == "Made: 6-block teacher"
    assert 'run = "evaluate"' in found.context
    assert [tile.value.replace(NBSP, " ") for tile in found.tiles] == ["74.9 %"]


def test_tiles_count_the_gates_met(tmp_path: Path) -> None:
    tile = headline_of(made_up_run.write_run(tmp_path)).tiles[-1]
    assert (tile.value, tile.detail) == ("1 of 2", "missed: scores.deploy.size_mib")


def test_a_model_at_chance_is_called_so_and_not_praised_for_being_equal(tmp_path: Path) -> None:
    """52.5 % of 120 texts where one answer is right in 50 %: no model learned anything."""
    models = {n: (*f[:2], 0.525, *f[3:]) for n, f in made_up_run.MODELS.items()}
    metrics = made_up_run.evaluate_metrics(models)
    metrics["data"]["chance"] = {"accuracy": 0.5}
    for figures in metrics["models"].values():
        figures["accuracy"] |= {"ci95": [0.433, 0.617], "n": 120}
    said = sentence(with_scores(tmp_path, metrics))
    assert "equal" not in said
    assert "both at chance in accuracy (52.5 %, and a constant prediction scores 50.0 %)" in said


def test_a_model_that_fell_to_chance_is_told_beside_its_loss(tmp_path: Path) -> None:
    models = dict(made_up_run.MODELS)
    models["deploy"] = (*models["deploy"][:2], 0.51, *models["deploy"][3:])
    metrics = made_up_run.evaluate_metrics(models)
    metrics["data"]["chance"] = {"accuracy": 0.5}
    metrics["models"]["deploy"]["accuracy"]["ci95"] = [0.48, 0.54]
    said = sentence(with_scores(tmp_path, metrics))
    assert "accuracy 23.9 points lower on 1,480 texts (a real difference" in said
    assert ", deploy at chance (51.0 %" in said
    metrics["models"]["deploy"]["accuracy"]["ci95"] = [0.501, 0.54]
    assert "chance" not in sentence(with_scores(tmp_path / "above", metrics))


def test_no_difference_on_120_texts_is_told_with_what_it_leaves_open(tmp_path: Path) -> None:
    models = {n: (*f[:2], 0.9, *f[3:]) for n, f in made_up_run.MODELS.items()}
    metrics = made_up_run.evaluate_metrics(models)
    for difference in metrics["differences"]:
        difference |= {"value": 0.0, "ci95": [0.0, 0.0], "n": 120}
    assert (
        "equal accuracy on 120 texts (with 95 % confidence, fewer than 2.5 % of all texts differ)"
    ) in sentence(with_scores(tmp_path, metrics))


def test_a_deployed_model_that_was_not_timed_is_not_the_fastest(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    del metrics["models"]["deploy"]["latency"], metrics["models"]["deploy"]["latency_ms"]
    assert headline_of(with_scores(tmp_path, metrics)).product == "deploy_ort"


def test_the_verdict_is_that_of_the_metric_that_is_told(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    told = {d["metric"] for d in metrics["differences"]}
    assert told == {"accuracy"}
    others = [
        d | {"metric": "f1", "within_noise": not d["within_noise"]} for d in metrics["differences"]
    ]
    metrics["differences"] = [*others, *metrics["differences"]]
    said = sentence(with_scores(tmp_path, metrics))
    assert re.search(r"accuracy \d\.\d points lower on 1,480 texts \(not significant: ", said), said


def test_a_gate_that_was_not_measured_is_not_told_as_missed(tmp_path: Path) -> None:
    gates = [
        {"metric": "scores.deploy.accuracy", "at_least": 0.1},
        {"metric": "scores.deploy.f2", "at_least": 0.1},
    ]
    inputs = made_up_run.write_run(tmp_path)
    tile = headline_of(inputs, made_up_run.recipe(gates=gates)).tiles[-1]
    assert (tile.value, tile.detail) == ("1 of 2", "1 not measured")


def test_tiles_and_sentence_have_the_same_figures(tmp_path: Path) -> None:
    """The ratio of the two medians may be another than the median of the paired ratios."""
    metrics = made_up_run.evaluate_metrics()
    for name, median in (("deploy", 2.6), ("deploy_ort", 2.4)):
        paired = {"median": median, "min": 0.9 * median, "max": 1.1 * median}
        metrics["models"][name]["latency"][0]["speedup"] |= paired
    found = headline_of(with_scores(tmp_path, metrics))
    tiles = {tile.label: tile for tile in found.tiles}
    assert "2.6× faster" in found.sentence
    assert tiles["latency, 1 × 128 tokens"].detail == "2.6× faster than teacher"
    assert tiles["size on disk"].detail == "5.0× smaller than teacher"
    assert tiles["throughput, 8 × 128 tokens"].value.replace(NBSP, " ") == "156 texts/s"


def test_a_wide_range_of_the_rounds_stands_beside_the_ratio(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    metrics["models"]["deploy"]["latency"][0]["speedup"] |= {"min": 4.04, "max": 17.2}
    found = headline_of(with_scores(tmp_path, metrics))
    assert ": 6.0× faster (4.0 to 17×), 5.0× smaller" in found.sentence
    assert found.tiles[1].detail == "6.0× faster than teacher (4.0 to 17×)"


def test_the_context_names_both_runtimes_and_a_float_model_in_the_same_one(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path / "run")
    speed = (
        "Speed compares PyTorch, float32 (teacher) with OpenVINO, int8 (deploy) on the same CPU, "
        "so part of the ratio is due to the runtime"
    )
    assert f". {speed}. Measured on" in headline_of(inputs).context
    steps = made_up_run.STEPS | {"plain": made_up_run.STEPS["deploy"] | {"model": "student"}}
    models = {**made_up_run.MODELS, "plain": ("openvino", 3, 0.7391, 13.84, 66.4, 164.0)}
    inputs = with_scores(tmp_path / "plain", made_up_run.evaluate_metrics(models))
    inputs["plain"] = made_up_run.write_step(
        tmp_path / "other", "plain", "export", made_up_run.export_metrics("deploy"), blocks=3
    )
    context = headline_of(inputs, made_up_run.recipe(steps=steps)).context
    assert f". {speed}; against OpenVINO, float32 (plain): 2.0× faster. Measured" in context


def test_a_speed_that_a_busy_machine_hid_is_not_told(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    metrics["models"]["deploy"]["latency"][0]["speedup"] |= {"min": 0.6, "max": 9.0}
    found = headline_of(with_scores(tmp_path, metrics))
    assert "speed not measurable: the machine is busy, 5.0× smaller" in found.sentence
    assert found.tiles[1].detail == "speed not measurable: the machine is busy"


NEW = {"run": "train", "model": {"size": "pico", "family": "llama", "tokenizer": "corpus"}}


def test_models_that_do_not_come_from_each_other_are_held_against_each_other(
    tmp_path: Path,
) -> None:
    models = {name: made_up_run.MODELS[name] for name in ("teacher", "student")}
    inputs = with_scores(tmp_path, made_up_run.evaluate_metrics(models))
    inputs = {name: inputs[name] for name in ("teacher", "student", "scores")}
    steps = made_up_run.STEPS | {"teacher": NEW, "student": NEW}
    content = made_up_run.recipe(steps=steps)
    assert sentence(inputs, content).startswith("3-block student against 6-block teacher: 2.0×")
    context = headline_of(inputs, content).context.replace(NBSP, " ")
    assert context.startswith("17.4 M parameters against 22.7 M. ")
    taught = made_up_run.recipe(steps=steps | {"student": NEW | {"teacher": "teacher"}})
    assert sentence(inputs, taught).startswith("6-block teacher → 3-block student: ")


def test_models_of_one_size_are_said_to_be_so(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    for figures in metrics["models"].values():
        figures["num_params"] = 935_040
    context = headline_of(with_scores(tmp_path, metrics)).context.replace(NBSP, " ")
    assert context.startswith("Both have 935 k parameters. ")
