"""Ratios, families of a sweep, and models that were only partly measured."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

import made_up_run
from attar.report.reading import read_made
from attar.report.sections.comparison import Comparison, comparisons


def compared(out: Path, metrics: dict[str, Any]) -> Comparison:
    inputs = {"scores": made_up_run.write_step(out, "scores", "evaluate", metrics)}
    return comparisons(read_made(inputs, made_up_run.recipe()))[0]


def test_ratios_are_against_the_first_float_model(tmp_path: Path) -> None:
    models = dict(reversed(made_up_run.MODELS.items()))
    comparison = compared(tmp_path, made_up_run.evaluate_metrics(models))
    assert comparison.baseline == "student"
    by_name = {row.name: row for row in comparison.rows}
    assert by_name["student"].size_ratio == 1.0
    assert by_name["teacher"].size_ratio == pytest.approx(66.4 / 86.7)


def test_the_speed_ratio_is_the_median_of_paired_rounds_where_it_was_measured(
    tmp_path: Path,
) -> None:
    metrics = made_up_run.evaluate_metrics()
    metrics["models"]["deploy"]["latency"][0]["speedup"]["median"] = 5.25
    del metrics["models"]["deploy_ort"]["latency"][0]["speedup"]
    by_name = {row.name: row for row in compared(tmp_path, metrics).rows}
    assert by_name["deploy"].speed_ratio == 5.25
    assert by_name["deploy_ort"].speed_ratio == pytest.approx(41.2 / 8.11)


def test_what_was_not_measured_is_missing_and_not_zero(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    for name in ("latency", "latency_ms", "peak_memory_mib", "size_mib"):
        del metrics["models"]["deploy"][name]
    row = next(row for row in compared(tmp_path, metrics).rows if row.name == "deploy")
    assert (row.latency_ms, row.size_mib, row.peak_memory_mib) == (None, None, None)
    assert (row.speed_ratio, row.size_ratio) == (None, None)


def test_a_family_is_the_mean_over_seeds_and_its_bar_one_standard_deviation(
    tmp_path: Path,
) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path)
    comparison = comparisons(read_made(inputs, content))[0]
    assert [row.name for row in comparison.families] == ["teacher", "student", "int8", "deploy"]
    values = [0.7391, 0.7391 + 0.006, 0.7391 - 0.004]
    quality = comparison.families[3].qualities["accuracy"]
    assert quality.value == pytest.approx(mean(values))
    assert quality.high == pytest.approx(mean(values) + stdev(values))
    assert comparison.families[3].runs == 3
    assert comparison.families[0].runs == 1


def test_runs_that_differ_in_a_setting_are_not_averaged(tmp_path: Path) -> None:
    deploy = made_up_run.MODELS["deploy"]
    names = ["teacher", *(f"deploy@seed={s},weight_bits={b}" for s in (0, 1) for b in (4, 8))]
    models = {name: made_up_run.MODELS.get(name, deploy) for name in names}
    comparison = compared(tmp_path, made_up_run.evaluate_metrics(models))
    families = [(row.name, row.runs) for row in comparison.families]
    assert families == [("teacher", 1), ("deploy@weight_bits=4", 2), ("deploy@weight_bits=8", 2)]


def test_copies_of_an_evaluation_are_one_comparison(tmp_path: Path) -> None:
    inputs = {}
    for seed in (0, 1):
        models = {
            "teacher": made_up_run.MODELS["teacher"],
            f"student@seed={seed}": made_up_run.MODELS["student"],
        }
        name = f"scores@seed={seed}"
        metrics = made_up_run.evaluate_metrics(models)
        inputs[name] = made_up_run.write_step(tmp_path, name, "evaluate", metrics)
    found = comparisons(read_made(inputs, made_up_run.recipe()))
    assert [each.step for each in found] == ["scores"]
    assert [row.name for row in found[0].rows] == ["teacher", "student@seed=0", "student@seed=1"]


def test_the_table_has_each_length_and_says_what_a_busy_machine_hid(tmp_path: Path) -> None:
    metrics = made_up_run.evaluate_metrics()
    for figures in metrics["models"].values():
        short = [each | {"tokens": 23, "p50": each["p50"] / 4} for each in figures["latency"]]
        figures["latency"] = [*short, *figures["latency"]]
    busy = metrics["models"]["deploy"]["latency"]
    for place, low, high in ((0, 0.6, 9.0), (2, 0.95, 1.1)):
        busy[place] |= {"speedup": busy[place]["speedup"] | {"min": low, "max": high}}
    inputs = {"scores": made_up_run.write_step(tmp_path / "run", "scores", "evaluate", metrics)}
    (comparison,) = comparisons(read_made(inputs, made_up_run.recipe()))
    assert [(each.batch, each.tokens) for each in comparison.shapes] == [(1, 23), (1, 128)]
    deploy = comparison.family("deploy")
    assert deploy is not None
    assert deploy.latency_ms == pytest.approx(6.92 / 4)  # of the first length
    assert (deploy.most_at_once.batch, deploy.most_at_once.tokens) == (8, 23)
    page = made_up_run.make_report(tmp_path / "report", inputs).read_text()
    assert "not measurable: the machine is busy<small>0.60 to 9.0</small>" in page
    assert "as fast<small>0.95 to 1.1</small>" in page
