"""The last lines of a run say what it found, in the figures of the report, and what to do next."""

from __future__ import annotations

from pathlib import Path

import made_up_run
from attar.artifacts import Result, read_json
from attar.recipe.outcome.findings import figures_of, findings
from attar.report.quantities import NBSP
from attar.report.reading import Made, read_made
from attar.report.sections.next_command import next_command
from attar.report.sections.page import page_of


def test_a_run_ends_with_quality_interval_latency_and_size_of_every_model(tmp_path: Path) -> None:
    recipe = made_up_run.recipe()
    lines = findings(read_made(made_up_run.write_run(tmp_path), recipe), recipe)
    assert lines[0] == "scores: docs, validation, 1,480 texts"
    heading, *rows = (line.split("  ") for line in lines[1:7])
    named = [word.strip() for word in heading if word.strip()]
    assert named == [
        *("model", "accuracy", "f1", "ms, 1 × 128 tokens", "speed", "texts/s, 8 × 128", "MiB"),
    ]
    assert [next(filter(None, row)) for row in rows] == list(made_up_run.MODELS)
    deploy = lines[5]
    for figure in ("73.9 % (71.7 to 76.1)", "6.92", "6.0× faster", "17.3"):
        assert figure in deploy


def test_the_verdict_is_that_of_the_page(tmp_path: Path) -> None:
    recipe = made_up_run.recipe()
    made = read_made(made_up_run.write_run(tmp_path), recipe)
    first = page_of(made, recipe).headline
    assert first.verdict.word == "NOT READY"
    plain = [line.replace(NBSP, " ") for line in first.lines]
    assert findings(made, recipe)[-len(plain) :] == plain


def test_what_comes_next_is_the_deployed_model_that_is_to_be_taken(tmp_path: Path) -> None:
    made = read_made(made_up_run.write_run(tmp_path / "a run"), made_up_run.recipe())
    for name in ("deploy", "deploy_ort"):  # the slower one where only it was judged
        gates = [{"metric": f"scores.{name}.accuracy", "at_least": 0.1}]
        command = next_command(made, made_up_run.recipe(gates=gates), tmp_path / "a run")
        assert command == f"attar predict '{tmp_path}/a run/{name}' \"a text\""
    assert next_command(made, made_up_run.recipe(), tmp_path) == ""  # what to try is said instead


def test_no_command_uses_a_model_that_is_no_better_than_a_constant(tmp_path: Path) -> None:
    recipe, inputs = made_up_run.recipe(gates=[]), made_up_run.write_run(tmp_path)
    metrics = made_up_run.evaluate_metrics()
    metrics["data"]["chance"] = {"accuracy": 0.74}
    inputs["scores"] = made_up_run.write_step(tmp_path / "other", "scores", "evaluate", metrics)
    assert next_command(read_made(inputs, recipe), recipe, tmp_path) == ""


def test_the_page_has_the_command_with_the_run_s_folder_and_no_folder_above(tmp_path: Path) -> None:
    gates = [{"metric": "scores.deploy.accuracy", "at_least": 0.1}]
    inputs = made_up_run.write_run(tmp_path / "runs" / "demo")
    page = made_up_run.make_report(tmp_path / "out", inputs, made_up_run.recipe(gates=gates))
    command = 'attar predict runs/demo/deploy "a text"'
    assert read_json(page.with_name("report.json"))["next"] == command
    assert f"Next: {command}" in page.with_name("report.md").read_text()
    escaped = command.replace('"', "&#34;")
    assert f"Next: <code>{escaped}</code>" in page.read_text()
    without = made_up_run.recipe(gates=[])
    made = read_made({name: inputs[name] for name in ("teacher", "student")}, without)
    assert next_command(made, without, tmp_path) == ""  # such a run ends with its report
    trained = next_command(made, without | {"steps": {}}, tmp_path)
    assert trained == f"attar evaluate --model {tmp_path}/student --data DATA"


def test_differences_in_words_follow_the_table_unless_a_report_has_them(tmp_path: Path) -> None:
    recipe = made_up_run.recipe()
    inputs = made_up_run.write_run(tmp_path / "run")
    told = made_up_run.evaluate_metrics()["differences"][0]["sentence"]
    assert told in findings(read_made(inputs, recipe), recipe)
    inputs["report"] = made_up_run.write_step(tmp_path / "other", "report", "report", {})
    assert told not in findings(read_made(inputs, recipe), recipe)


def test_a_figure_with_a_limit_is_given_with_it() -> None:
    assert figures_of("export", made_up_run.export_metrics("deploy")) == [
        ("format", "openvino"),
        ("parity.label_flips", "0.008 (limit 0.02)"),
        ("parity.relative_error", "0.310 (limit 1)"),
        ("size_mib", "17.300"),
    ]


def test_one_step_ends_with_a_table_of_what_it_measured(tmp_path: Path) -> None:
    made = Made("int8", Result("int8", "quantize", "k", metrics=made_up_run.quantize_metrics()))
    assert [line.split() for line in findings([made], {})] == [
        *(["method", "percentile"], ["weight_bits", "8"], ["embedding_bits", "8"]),
        *(["activation_bits", "8"],),
        *(["mean_sqnr_db", "33.400"], ["size_mib", "16.800"]),
    ]
    assert next_command([made], {}, tmp_path) == f"attar export --model {tmp_path}/int8 --data DATA"
