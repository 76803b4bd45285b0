"""The first sentence says what the figures say, and claims nothing about chance on its own."""

from __future__ import annotations

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
        "6-block teacher → 3-block int8 student: 6.0× faster, 5.0× smaller, "
        "1.0 points lower in accuracy (inside the noise)"
    )


def test_a_difference_outside_the_noise_is_called_so(tmp_path: Path) -> None:
    models = dict(made_up_run.MODELS)
    form, blocks, _, *rest = models["deploy"]
    models["deploy"] = (form, blocks, 0.70, *rest)
    inputs = with_scores(tmp_path, made_up_run.evaluate_metrics(models))
    assert "4.9 points lower in accuracy (outside the noise)" in sentence(inputs)


def test_without_a_paired_interval_nothing_is_said_about_noise(tmp_path: Path) -> None:
    inputs = with_scores(tmp_path, made_up_run.evaluate_metrics() | {"differences": []})
    assert "noise" not in sentence(inputs)


def test_a_slower_and_larger_model_is_called_slower_and_larger(tmp_path: Path) -> None:
    models = dict(made_up_run.MODELS)
    models["deploy"] = ("openvino", 3, 0.7391, 82.4, 173.4, 164.0)
    del models["deploy_ort"]
    inputs = with_scores(tmp_path, made_up_run.evaluate_metrics(models))
    assert "2.0× slower, 2.0× larger" in sentence(inputs)


def test_runs_that_disagree_about_the_noise_are_counted(tmp_path: Path) -> None:
    inputs, content = made_up_run.write_sweep(tmp_path)
    assert "(inside the noise in 2 of 3 runs)" in sentence(inputs, content)


def test_without_an_evaluation_the_headline_says_what_is_missing(tmp_path: Path) -> None:
    inputs = made_up_run.write_run(tmp_path)
    found = headline_of({"teacher": inputs["teacher"]}, made_up_run.recipe(gates=[]))
    assert found.sentence == "Made: 6-block teacher"
    assert 'run = "evaluate"' in found.context
    assert [tile.value.replace(NBSP, " ") for tile in found.tiles] == ["74.9 %"]


def test_tiles_count_the_gates_met(tmp_path: Path) -> None:
    tile = headline_of(made_up_run.write_run(tmp_path)).tiles[-1]
    assert (tile.value, tile.detail) == ("1 of 2", "missed: scores.deploy.size_mib")
