"""Lineage, training curves, quantization, export, sweep and provenance as data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_up_run
from attar.artifacts import read_json, result_hash, write_json
from attar.report.charts.pictures import training_pictures
from attar.report.html import html_of
from attar.report.markdown import markdown_of
from attar.report.quantities import NBSP
from attar.report.reading import Made, read_made
from attar.report.sections.compression import exports, quantizations
from attar.report.sections.lineage import Node, described, lineage, verb
from attar.report.sections.page import page_of
from attar.report.sections.provenance import provenance
from attar.report.sections.training import MOST_POINTS, Curve, smoothed, thinned, trainings


@pytest.fixture
def made(tmp_path: Path) -> tuple[Made, ...]:
    return read_made(made_up_run.write_run(tmp_path), made_up_run.recipe())


def names(node: Node) -> list[object]:
    return [node.name, *(names(child) for child in node.children)]


def test_every_model_hangs_below_the_one_it_was_made_from(made: tuple[Made, ...]) -> None:
    trees = [names(root) for root in lineage(made)]
    below = ["int8", ["deploy"], ["deploy_ort"]]
    assert trees == [["demo:minilm-l6", ["teacher", ["student", below]]]]


def test_a_model_made_from_nothing_is_a_root(tmp_path: Path) -> None:
    content = made_up_run.recipe(steps={"tiny": {"run": "train", "model": {"config": {}}}})
    folder = made_up_run.write_step(tmp_path, "tiny", "train", made_up_run.train_metrics("tiny"))
    assert [names(root) for root in lineage(read_made({"tiny": folder}, content))] == [["tiny"]]


def test_a_model_that_says_it_is_made_from_itself_does_not_hang_the_page(tmp_path: Path) -> None:
    content = made_up_run.recipe(steps={"loop": {"run": "train", "model": "loop"}})
    folder = made_up_run.write_step(tmp_path, "loop", "train", made_up_run.train_metrics("loop"))
    read = read_made({"loop": folder}, content)
    assert described("loop", read) == "loop"
    lineage(read)


def test_runs_of_a_sweep_are_one_node(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path)
    student = lineage(read_made(inputs, content))[0].children[0].children[0]
    assert (student.name, student.facts) == ("student", "3 blocks, 3 runs")


def test_sites_come_worst_first_and_lossless_ones_last(tmp_path: Path) -> None:
    metrics = made_up_run.quantize_metrics()
    metrics["sites"]["exact"] = {"kind": "query", "block": 0, "sqnr_db": None}
    folder = made_up_run.write_step(tmp_path, "int8", "quantize", metrics)
    sites = quantizations(read_made({"int8": folder}, made_up_run.recipe()))[0].sites
    known = [site.sqnr_db for site in sites[:-1]]
    assert known == sorted(known, key=float)
    assert sites[-1].name == "exact"


def test_an_export_says_what_stayed_in_float_and_why(made: tuple[Made, ...]) -> None:
    found = exports(made)[0]
    assert (found.num_int8, found.num_matmuls, len(found.left_in_float)) == (23, 26, 3)
    assert found.left_in_float[0][1] == "scores of attention stay in float32"


def test_parts_of_the_loss_are_drawn_only_when_there_are_several(made: tuple[Made, ...]) -> None:
    teacher, student = trainings(made)
    assert teacher.parts == ()
    assert [curve.name for curve in student.parts] == ["forward_kl", "hidden_mse"]
    assert list(student.validation) == ["accuracy"]
    lines = [[curve.name for curve in training.smooth_loss] for training in (teacher, student)]
    assert lines[0] == ["training", "validation"]
    assert lines[1] == ["training (forward_kl + hidden_mse)", "validation (cross_entropy)"]
    (loss, accuracy) = training_pictures(teacher)
    assert [key.text for key in loss.keys] == lines[0]
    assert accuracy.title == "Validation accuracy"


def test_a_loss_that_is_not_a_number_is_a_gap(tmp_path: Path) -> None:
    folder = made_up_run.write_step(tmp_path, "t", "train", made_up_run.train_metrics("t"))
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0}]
    (folder / "history.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    training = trainings(read_made({"t": folder}, {}))[0]
    assert training.loss[0].points == ((1.0, 2.0), (3.0, 1.0))


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_thinning_keeps_the_ends_of_the_range_and_few_points(heights: list[float]) -> None:
    points = thinned([(float(step), height) for step, height in enumerate(heights)])
    assert 0 < len(points) <= MOST_POINTS
    room = 1e-6 * max(abs(height) for height in heights) + 1e-9
    assert all(min(heights) - room <= y <= max(heights) + room for _, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_smoothing_leaves_a_straight_line_straight() -> None:
    line = Curve("line", tuple((float(i), 3.0) for i in range(100)))
    assert smoothed(line) == line


def test_a_sweep_shows_every_run_with_mean_deviation_best_and_count(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path)
    sweeps = page_of(read_made(inputs, content), content).sweeps
    student = next(sweep for sweep in sweeps if sweep.name == "student")
    assert [name for name, _ in student.runs] == ["seed=0", "seed=1", "seed=2"]
    spread = student.spreads["accuracy"]
    assert (spread.n, student.best["accuracy"]) == (3, pytest.approx(0.7469))
    assert spread.sd == pytest.approx(0.00503, rel=1e-2)


def test_provenance_says_which_numbers_were_checked_against_a_hash(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    content = made_up_run.recipe()
    for name, folder in inputs.items():
        if name != "teacher":
            written = read_json(folder / "result.json")
            write_json(folder / "result.json", written | {"sha256": result_hash(written)})
    page = page_of(read_made(inputs, content), content)
    assert page.provenance.unsealed == ("teacher",)
    total = len(inputs)
    told = (
        f"The numbers of {total - 1} of {total} steps were verified by the sha256 in their "
        "result.json; not checked, written without one: teacher."
    )
    assert page.provenance.rests_on == told
    html = html_of(page, read_made(inputs, content))
    assert told in html
    assert told in markdown_of(html, "t")


def test_provenance_counts_what_was_set_aside_and_names_differing_versions(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    file = inputs["teacher"] / "result.json"
    file.write_text(file.read_text().replace("2.13.0", "2.12.0"))
    content = made_up_run.recipe()
    page = page_of(read_made(inputs, content), content)
    origin = page.provenance
    name = origin.data[0].name
    text = markdown_of(html_of(page, read_made(inputs, content)), "t")
    assert f"| {name} |" in text
    assert "341 × seen before" in text
    assert origin.data[0].set_aside == {"longer than 400 characters": 212, "seen before": 341}
    assert origin.differing_versions == {"torch": ("2.12.0", "2.13.0")}
    assert origin.seconds == pytest.approx(sum(made_up_run.SECONDS.values()) + 61.0)


def _train(folder: Path, name: str, settings: dict[str, object], **metrics: object) -> Made:
    figures = made_up_run.train_metrics(name) | metrics
    step = made_up_run.write_step(folder, name, "train", figures)
    content = {"steps": {name: {"run": "train", **settings}}}
    return read_made({name: step}, content)[0]


def test_a_model_without_weights_to_start_from_is_not_fine_tuned(tmp_path: Path) -> None:
    new = {"size": "pico", "family": "llama", "tokenizer": "corpus"}
    made = [
        _train(tmp_path / "a", "new", {"model": new}),
        _train(tmp_path / "b", "cut", {"model": {"from": "new", "keep_blocks": [0]}}),
        _train(tmp_path / "c", "unknown", {}),
    ]
    assert [verb(step) for step in made] == [
        *("trained from random weights", "fine-tuned", "fine-tuned")
    ]


def test_provenance_says_what_is_counted(tmp_path: Path) -> None:
    """The reserved part of a corpus has chunks; only its table has rows."""
    counts = {"name": "library", "train_rows": 609, "validation_rows": 355, "set_aside": {}}
    made = [
        _train(
            tmp_path / "a",
            "teacher",
            {"data": "corpus", "part": "reserved"},
            objective="causal_lm",
            data=counts,
        ),
        _train(
            tmp_path / "b",
            "student",
            {"data": {"from": "kept", "retokenize": True}},
            objective="causal_lm",
            data=counts,
        ),
        _train(tmp_path / "c", "other", {"data": "library"}, data=counts),
    ]
    found = [(row.name, row.unit) for row in provenance(made, {}, {}).data]
    assert found == [("corpus, reserved part", "chunks"), ("kept", "chunks"), ("library", "rows")]
    page = page_of(made, {})
    text = markdown_of(html_of(page, made), "t")
    assert "| corpus, reserved part | 609 chunks | 355 chunks | none |" in text


def test_what_was_looked_at_once_is_a_figure_and_no_chart(tmp_path: Path) -> None:
    metrics = made_up_run.train_metrics("teacher") | {"flops": 9_043_351_142_400}
    step = made_up_run.write_step(tmp_path, "teacher", "train", metrics)
    line = {"step": 9, "epoch": 1, "loss": 1.5, "validation": {"nll": 5.98}}
    (step / "history.jsonl").write_text(json.dumps(line) + "\n")
    [training] = trainings(read_made({"teacher": step}, {}))
    assert training.validation == {}
    assert ("validation nll", 5.98) in training.facts
    assert ("floating-point operations of training", f"9.04{NBSP}T") in training.facts
    assert training_pictures(training) == ()


def test_a_metric_with_one_value_all_the_time_is_a_figure_and_no_chart(tmp_path: Path) -> None:
    step = made_up_run.write_step(
        tmp_path, "teacher", "train", made_up_run.train_metrics("teacher")
    )
    lines = [
        {"step": at, "epoch": at, "loss": 1 / at, "validation": {"accuracy": 1.0, "loss": 1 / at}}
        for at in (1, 2, 3)
    ]
    (step / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [training] = trainings(read_made({"teacher": step}, {}))
    assert ("validation accuracy", 1.0) in training.facts
    assert [picture.title for picture in training_pictures(training)] == ["Loss"]


def test_a_validation_loss_that_is_the_nll_is_shown_once(tmp_path: Path) -> None:
    """And of metrics that fall, the best run of a sweep is the lowest."""
    inputs = {}
    for seed, nll in ((0, 6.0), (1, 5.0)):
        name, values = f"student@seed={seed}", {"nll": nll, "perplexity": 9.0, "loss": nll}
        metrics = made_up_run.train_metrics("student") | {"validation": values}
        inputs[name] = made_up_run.write_step(tmp_path, name, "train", metrics)
        looks = [{"step": step, "validation": values} for step in (1, 2)]
        history = "\n".join(json.dumps(look) for look in looks)
        (inputs[name] / "history.jsonl").write_text(history)
    made = read_made(inputs, {})
    [training], [sweep] = trainings(made), page_of(made, {}).sweeps
    assert list(training.validation) == list(sweep.metrics) == ["nll", "perplexity"]
    assert sweep.best["nll"] == 5.0
